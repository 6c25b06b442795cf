"""The refiner as TRL's trainers want a policy: token ids of user prompt and completion in, log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from prip.errors import PripError
from prip.modeling import PreferenceEncoder

from ..rollouts.policy import ActionBatch, Policy, Refinement
from . import ppo
from .context import RolloutBatch

NO_LABEL = -100
"""Label of a token that is not part of the completion"""


class TrlPolicyConfig(PreTrainedConfig):
    """What TRL asks the config of a policy for."""

    model_type = "prip_trl_policy"


@dataclass
class TrlPolicyOutput(ModelOutput):
    """Figures of the tokens after the first, each (batch, length - 1), 0 outside the completion."""

    log_probs: Tensor | None = None
    entropy: Tensor | None = None


@dataclass(frozen=True)
class Generation:
    """The rollouts of an iteration that this process made."""

    batch: RolloutBatch
    refinements: list[Refinement]
    actions: ActionBatch
    """On the CPU"""
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], int]
    """Where the tokens of a user prompt and of its completion stand in `actions`"""


class Rollouts:
    """Makes the rollouts of an iteration, for the policy and the reference that it is held to alike.

    The user prompts, the prefix rule, the constraints and the seeds are those of PPO: `generate` checks that TRL asks
    for the user prompts of the iteration, and `rows` has the masks that held for what it gave out.
    """

    def __init__(self, policy: Policy, prompt_ids: dict[str, list[int]], stop: int, pad: int) -> None:
        """prompt_ids: the tokens by which TRL names each user prompt. stop, pad: tokens of TRL's tokenizer."""
        self.policy, self.stop, self.pad = policy, stop, pad
        self._prompts = {tuple(ids): prompt for prompt, ids in prompt_ids.items()}
        if len(self._prompts) < len(prompt_ids):
            raise PripError("rl: two user prompts have the same tokens, so that TRL could not tell them apart")
        self.due: RolloutBatch | None = None
        """What `generate` is to be asked for next"""
        self.made: Generation | None = None

    def generate(self, encoder_prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Returns the actions for user prompts given by their tokens."""
        prompts = [self._prompts[ids] for ids in encoder_prompts]
        assert self.due is not None, "the iteration's user prompts are set before TRL generates"
        if prompts != self.due.user_prompts:
            raise PripError(f"rl: TRL asked for other user prompts than those of iteration {self.due.iteration}")
        refinements = self.policy.refine(prompts, 1.0, self.due.sample_seeds)
        keys = zip(encoder_prompts, (tuple(one.actions) for one in refinements), strict=True)
        places = {key: place for place, key in enumerate(keys)}
        self.made = Generation(self.due, refinements, self.policy.collate(refinements), places)
        return [one.actions for one in refinements]

    def rows(self, input_ids: Tensor, attention_mask: Tensor, chosen: Tensor) -> ActionBatch:
        """Returns the rollouts that these rows spell: tokens int64 (batch, length), mask (1 = token), and bool
        (batch, length), True in the completion."""
        assert self.made is not None, "TRL scores what it has generated"
        places = []
        for ids, mask, own in zip(input_ids.cpu(), attention_mask.cpu().bool(), chosen.cpu(), strict=True):
            places.append(self.made.places[tuple(ids[mask & ~own].tolist()), tuple(ids[own].tolist())])
        return self.made.actions.rows(torch.tensor(places))


class TrlPolicy(PreTrainedModel):
    """An encoder before the frozen decoder. The encoder is the only submodule: nothing else trains or is moved."""

    config_class = TrlPolicyConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"

    def __init__(self, encoder: PreferenceEncoder, rollouts: Rollouts) -> None:
        super().__init__(TrlPolicyConfig())
        self.encoder, self.rollouts = encoder, rollouts
        self.generation_config = GenerationConfig(eos_token_id=rollouts.stop, pad_token_id=rollouts.pad)

    def train(self, mode: bool = True) -> TrlPolicy:
        """Tells TRL that it trains, and leaves the encoder in evaluation mode: T5's dropout stays off."""
        self.training = mode
        self.encoder.eval()
        return self

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Tensor:
        """Returns the prompts as given, int64 (batch, length), and after them the completions, padded on the right."""
        prompts = [tuple(ids[mask].tolist()) for ids, mask in zip(input_ids, attention_mask.bool(), strict=True)]
        actions = self.rollouts.generate(prompts)
        added = torch.full((len(actions), max(map(len, actions))), self.rollouts.pad)
        for row, own in zip(added, actions, strict=True):
            row[: len(own)] = torch.tensor(own)
        return torch.cat([input_ids, added.to(input_ids)], dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: Any) -> TrlPolicyOutput:
        """Scores completions under the constraints by which they were made: what TRL calls with fused_lm_head=True.

        input_ids, attention_mask, labels int64 (batch, length); a label is the token itself, NO_LABEL outside the
        completion.
        """
        chosen = labels != NO_LABEL
        batch = self.rollouts.rows(input_ids, attention_mask, chosen).to(input_ids.device)
        allowed = batch.allowed
        logits, _hidden = self.rollouts.policy.score(self.encoder, batch)
        figures = (
            ppo.token_log_probabilities(logits, allowed, batch.actions, batch.mask),
            ppo.token_entropy(logits, allowed, batch.mask),
        )
        places = chosen[:, 1:]
        return TrlPolicyOutput(
            *(values.new_zeros(places.shape).masked_scatter(places, values[batch.mask]) for values in figures)
        )
