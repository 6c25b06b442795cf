"""The refiner as a policy for TRL: token ids of user prompt and completion in, log-probabilities out."""

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
"""Label of a token outside the completion"""


class TrlPolicyConfig(PreTrainedConfig):
    """The config that TRL requires of a policy."""

    model_type = "prip_trl_policy"


@dataclass
class TrlPolicyOutput(ModelOutput):
    """Figures of all tokens but the first, (batch, length - 1), 0 outside the completion."""

    log_probs: Tensor | None = None
    entropy: Tensor | None = None


@dataclass(frozen=True)
class Generation:
    """The rollouts of an iteration in this process."""

    batch: RolloutBatch
    refinements: list[Refinement]
    actions: ActionBatch
    """On the CPU"""
    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], int]
    """Row of `actions` by the tokens of the user prompt and of the completion"""


class Rollouts:
    """The rollouts of an iteration, shared by the policy and its reference.

    User prompts, prefix rule, constraints and seeds are those of PPO. `generate` checks that TRL asks for the user
    prompts of the iteration; `rows` returns the masks under which the completions were sampled.

    Args:
        policy: Samples the refinements.
        prompt_ids: The token ids by which TRL identifies each user prompt.
        stop: End token of TRL's tokenizer.
        pad: Padding token of TRL's tokenizer.
    """

    def __init__(self, policy: Policy, prompt_ids: dict[str, list[int]], stop: int, pad: int) -> None:
        self.policy, self.stop, self.pad = policy, stop, pad
        self._prompts = {tuple(ids): prompt for prompt, ids in prompt_ids.items()}
        if len(self._prompts) < len(prompt_ids):
            raise PripError("rl: two user prompts have the same tokens, so TRL cannot tell them apart")
        self.due: RolloutBatch | None = None
        """The batch that the next call of `generate` must ask for"""
        self.current: Generation | None = None

    def generate(self, encoder_prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Return the actions for user prompts given by their token ids."""
        prompts = [self._prompts[ids] for ids in encoder_prompts]
        assert self.due is not None, "the batch is set before TRL generates"
        if prompts != self.due.user_prompts:
            raise PripError(f"rl: TRL asked for user prompts that are not those of iteration {self.due.iteration}")
        refinements = self.policy.refine(prompts, 1.0, self.due.sample_seeds)
        keys = zip(encoder_prompts, (tuple(refinement.actions) for refinement in refinements), strict=True)
        rows = {key: row for row, key in enumerate(keys)}
        self.current = Generation(self.due, refinements, self.policy.collate(refinements), rows)
        return [refinement.actions for refinement in refinements]

    def rows(self, input_ids: Tensor, attention_mask: Tensor, in_completion: Tensor) -> ActionBatch:
        """Return the rollouts with these tokens.

        Args:
            input_ids: int64 (batch, length).
            attention_mask: (batch, length), 1 = token.
            in_completion: bool (batch, length), True in the completion.
        """
        assert self.current is not None, "TRL scores only what it has generated"
        rows = []
        for ids, mask, completion in zip(
            input_ids.cpu(), attention_mask.cpu().bool(), in_completion.cpu(), strict=True
        ):
            rows.append(self.current.rows[tuple(ids[mask & ~completion].tolist()), tuple(ids[completion].tolist())])
        return self.current.actions.rows(torch.tensor(rows))


class TrlPolicy(PreTrainedModel):
    """A preference encoder before the frozen decoder. Only the encoder is a submodule: nothing else trains or moves."""

    config_class = TrlPolicyConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"

    def __init__(self, encoder: PreferenceEncoder, rollouts: Rollouts) -> None:
        super().__init__(TrlPolicyConfig())
        self.encoder, self.rollouts = encoder, rollouts
        self.generation_config = GenerationConfig(eos_token_id=rollouts.stop, pad_token_id=rollouts.pad)

    def train(self, mode: bool = True) -> TrlPolicy:
        """Set the mode that TRL sees; the encoder stays in eval mode, so T5's dropout stays off."""
        self.training = mode
        self.encoder.eval()
        return self

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Tensor:
        """Return the prompts followed by their completions, int64 (batch, length), padded on the right."""
        prompts = [tuple(ids[mask].tolist()) for ids, mask in zip(input_ids, attention_mask.bool(), strict=True)]
        actions = self.rollouts.generate(prompts)
        added = torch.full((len(actions), max(map(len, actions))), self.rollouts.pad)
        for row, tokens in zip(added, actions, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        return torch.cat([input_ids, added.to(input_ids)], dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: Any) -> TrlPolicyOutput:
        """Score completions under the constraints with which they were sampled; TRL calls it with fused_lm_head=True.

        Args:
            input_ids: int64 (batch, length).
            attention_mask: int64 (batch, length).
            labels: int64 (batch, length): the token itself, NO_LABEL outside the completion.
        """
        in_completion = labels != NO_LABEL
        batch = self.rollouts.rows(input_ids, attention_mask, in_completion).to(input_ids.device)
        allowed = batch.allowed
        logits, _hidden = self.rollouts.policy.action_logits(self.encoder, batch)
        figures = (
            ppo.token_log_probabilities(logits, allowed, batch.actions, batch.mask),
            ppo.token_entropy(logits, allowed, batch.mask),
        )
        targets = in_completion[:, 1:]
        return TrlPolicyOutput(
            *(values.new_zeros(targets.shape).masked_scatter(targets, values[batch.mask]) for values in figures)
        )
