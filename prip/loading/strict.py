"""Load transformers models from safetensors alone, and check that every weight is used."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CheckpointError, require
from .folders import PART_TYPES, PartFolder
from .untrusted import Weights, check_counts, check_shapes, open_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")
_REASON_CHARACTERS = 400
_NEVER_CONVERTED = {*PART_TYPES.values(), "llama", "t5"}
"""Model types with weights that transformers loads under the names in the file."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports; whatever matters in them is raised as an error instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def checkpoint_errors(source: object) -> Iterator[None]:
    """Raise any error inside the block as a CheckpointError of one line, since a bad config can break any line of a
    model's constructor."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:_REASON_CHARACTERS]
        raise CheckpointError(f"{source} cannot be loaded: {type(error).__name__}: {reason}") from error


def load_strictly(
    cls: type[Model],
    folder: Path | PartFolder,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    **options: Any,
) -> Model:
    """Load a saved model in evaluation mode; arguments are those of `StrictModel.from_pretrained`.

    transformers' own `from_pretrained` replaces attributes of its classes while it loads, which breaks loading from
    several threads. It is therefore used only for what is not done here: a `device_map`, `options`, renamed weights and
    generation configs.

    Raises CheckpointError if weights are missing, unexpected (both are listed) or damaged, if their shapes do not fit
    the config (checked before memory is allocated), or if the config is foreign.
    """
    import torch
    from transformers import PreTrainedModel

    if device_map is not None:
        require("accelerate", "generate")
    part = folder if isinstance(folder, PartFolder) else PartFolder.open(folder, _config_class(cls).model_type)
    path, file = part.path, part.path / "config.json"
    weights = open_weights(path)
    check_counts(part.config, len(weights), file)
    if dtype is None:
        dtype = "float32" if device_map is None or str(device_map) == "cpu" else "auto"
    with checkpoint_errors(path):
        with torch.device("meta"):
            model = cls(_config_class(cls).from_dict(copy.deepcopy(part.config)))
        check_shapes(model, weights.shapes, file)
        if device_map is None and not options and _can_fill(model, weights, dtype):
            missing, unexpected = _fill(model, weights, _dtype(dtype, part.config, weights)), []
        else:
            fixed = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
            load: Any = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]
            with quiet():
                model, info = load(cls, str(path), dtype=dtype, device_map=device_map, **fixed, **options)
            missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    problems = [
        f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}")
    return model.eval()


def _config_class(cls: type[PreTrainedModel]) -> type[PreTrainedConfig]:
    assert cls.config_class is not None
    return cls.config_class


def _dtype(dtype: str | torch.dtype, config: dict[str, Any], weights: Weights) -> torch.dtype:
    """Return the dtype to load in; "auto" is that of the config, or of the first weight."""
    from ..devices import as_dtype

    if dtype != "auto":
        return as_dtype(dtype)
    stored = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    return as_dtype(config.get("dtype") or next(stored, None))


def _can_fill(model: PreTrainedModel, weights: Weights, dtype: str | torch.dtype) -> bool:
    """Return whether `_fill` loads the same model as transformers: no weight is renamed, no generation config is read,
    and no buffer depends on torch's default dtype."""
    from transformers import PreTrainedModel

    stored = model.state_dict().keys()
    if model.can_generate() or not weights.keys() <= stored:
        return False
    computed = [name for name, buffer in model.named_buffers() if name not in stored and buffer.is_floating_point()]
    exact = str(dtype).removeprefix("torch.") == "float32" or all(name.endswith("inv_freq") for name in computed)
    types = {part.config.model_type for part in model.modules() if isinstance(part, PreTrainedModel)}
    if not exact or types <= _NEVER_CONVERTED:
        return exact
    from transformers.conversion_mapping import get_model_conversion_mapping  # building the mapping takes 0.3 s

    return not get_model_conversion_mapping(model, add_legacy=False)


def _fill(model: PreTrainedModel, weights: Weights, dtype: torch.dtype) -> list[str]:
    """Give a model on the meta device its weights, and return the names of those that are missing."""
    import torch

    exact = set(model._keep_in_fp32_modules_strict or ()) if dtype != torch.float32 else set()
    if dtype == torch.float16:
        exact |= set(model._keep_in_fp32_modules or ())
    state = {}
    for name, tensor in weights.items():
        keep = any(f".{module}." in f".{name}." for module in exact)
        state[name] = tensor.to(torch.float32 if keep else dtype) if tensor.is_floating_point() else tensor
    model.load_state_dict(state, strict=False, assign=True)
    _tie(model, weights)
    _compute_buffers(model, model)
    return sorted(name for name, tensor in model.state_dict().items() if tensor.is_meta)


def _tie(model: PreTrainedModel, weights: Weights) -> None:
    """Share tied weights, from whichever is stored. transformers' `tie_weights` is disabled for all threads while one
    of them loads."""
    groups: dict[str, list[str]] = defaultdict(list)
    for target, source in model.all_tied_weights_keys.items():
        groups[source].append(target)
    for source, targets in groups.items():
        names = [source, *targets]
        stored = [name for name in names if name in weights]
        for name in names if stored else ():
            if name not in weights:
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, model.get_parameter(stored[0]))


def _compute_buffers(module: torch.nn.Module, owner: PreTrainedModel) -> None:
    """Compute the buffers that are not stored, such as rotary frequencies, as the model that owns them does."""
    import torch
    from transformers import PreTrainedModel

    owner = module if isinstance(module, PreTrainedModel) else owner
    for child in module.children():
        _compute_buffers(child, owner)
    names = [name for name in module._non_persistent_buffers_set if module.get_buffer(name).is_meta]
    for name in names:
        module._buffers[name] = torch.empty_like(module.get_buffer(name), device="cpu")
    if names:
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        owner._init_weights(module)
