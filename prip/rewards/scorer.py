"""What the published rewards share: batches, devices, and strict loading of weights that others have named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ..errors import CheckpointError
from ..loading.strict import quiet
from ..modeling.strict_model import StrictModel
from ..protocols import Images
from .preprocessing import check_float_pairs, check_pairs


class Scorer(StrictModel):
    """Base of the published rewards. A subclass says in `score` what one batch scores."""

    main_input_name = "pixel_values"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Leaves its own layers as torch made them; the networks within initialise themselves."""

    @property
    def name(self) -> str:
        """What tables call this reward."""
        return self.config.name

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores of one batch, float32 (n,) on the model's device; images, uint8 or floats, lie there already."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, user_prompts: Sequence[str], images: Images, batch_size: int = 64) -> Tensor:
        """Scores, float32 (n,) on the CPU. Raises InputError unless there is one uint8 image for each prompt."""
        check_pairs(len(user_prompts), images)
        starts = range(0, len(user_prompts), batch_size)
        batches = [
            self.score(user_prompts[i : i + batch_size], images[i : i + batch_size].to(self.device)) for i in starts
        ]
        return torch.cat(batches).float().cpu() if batches else torch.zeros(0)

    def scores_with_gradient(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores, float32 (n,), differentiable by float images in 0..255. Raises InputError unless there is one for
        each prompt."""
        check_float_pairs(len(user_prompts), images)
        return self.score(user_prompts, images.float().to(self.device)).float()

    @classmethod
    def from_weights(
        cls, config: PreTrainedConfig, weights: Mapping[str, Tensor], origin: object, dtype: torch.dtype | None = None
    ) -> Any:
        """Builds the reward around weights under its own names; `origin` is what an error calls them.

        Raises CheckpointError, which lists them, for weights that are missing, unexpected or of another shape.
        """
        try:
            with quiet():
                loaded: Any = super(StrictModel, cls).from_pretrained(
                    None,
                    config=config,
                    state_dict=dict(weights),
                    dtype=dtype or torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(f"{origin} cannot be loaded as {cls.__name__}: {error}") from error
        model, info = loaded
        problems = {what: info.get(f"{what}_keys") for what in ("missing", "unexpected", "mismatched")}
        told = [f"{what} {', '.join(sorted(map(str, keys)))}" for what, keys in problems.items() if keys]
        if told:
            raise CheckpointError(f"{origin} does not fit {cls.__name__}: {'; '.join(told)}")
        return model.eval()
