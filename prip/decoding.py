"""Choosing D's tokens one by one, under the constraints, with the language model's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from .errors import InputError
from .llama_step import LlamaStep

if TYPE_CHECKING:
    from .constraints import Constraints, ConstraintState
    from .modeling import PromptDecoder


def row_generator(seed: int, user_prompt: str, alternative: int = 0) -> torch.Generator:
    """Return the source of randomness of one text: a function of what is given here and of nothing else."""
    key = f"{seed}\0{alternative}\0{user_prompt}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


@torch.no_grad()
def decode(
    decoder: PromptDecoder,
    pivot: torch.Tensor | None,
    prefix_ids: Sequence[Sequence[int]],
    constraints: Constraints,
    state: ConstraintState,
    temperature: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
) -> list[list[int]]:
    """Continue each prefix until its row of `state` is done; `state` ends up there.

    `pivot` `(batch, pivot_length, pivot_width)`, or None for none; `prefix_ids` as PripProcessor gives them.
    `temperature` 0 takes the likeliest token; above it tokens are sampled, each row from its own generator of
    `generators` (on the CPU), so that a text does not depend on its batch.
    Returns the actions of each row, the end token included; none for rows that are full.
    Raises InputError when D is in training mode: its dropout would be on.
    """
    if decoder.training:
        raise InputError("decoder must be in evaluation mode while it decodes: call decoder.eval()")
    actions: list[list[int]] = [[] for _ in prefix_ids]
    rows = [row for row, done in enumerate(state.done) if not done]
    if not rows:
        return actions
    stream = _Stream(decoder, pivot, prefix_ids, rows)
    logits = stream.first()
    while True:
        allowed = constraints.allowed(state, rows).to(logits.device)
        scores = logits.float().masked_fill_(~allowed, float("-inf"))
        if temperature > 0:
            assert generators is not None, "sampling needs one generator a row"
            scores = scores / temperature + _gumbel(scores.shape[1], [generators[row] for row in rows], scores.device)
        chosen = scores.argmax(dim=-1)
        tokens = dict(zip(rows, chosen.tolist(), strict=True))
        for row, token in tokens.items():
            if not state.rows[row].done:
                actions[row].append(token)
        constraints.advance(state, [tokens.get(row, constraints.table.eos) for row in range(len(actions))])
        still = [place for place, row in enumerate(rows) if not state.rows[row].done]
        if not still:
            return actions
        if len(still) <= len(rows) // 2:
            rows = [rows[place] for place in still]
            kept = torch.tensor(still, device=chosen.device)
            chosen = chosen[kept]
            stream.keep(kept)
        logits = stream.next(chosen)


def _gumbel(width: int, generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """Return Gumbel noise `(batch, width)`, each row from its own generator: argmax(logits + noise) samples softmax."""
    noise = torch.stack([torch.empty(width).exponential_(generator=generator) for generator in generators])
    return noise.log_().neg_().to(device)


class _Stream:
    """The language model's next logits, step by step, for rows whose prefixes differ in length.

    Shorter prefixes are padded between the head and the prefix; positions count the real tokens alone.
    """

    def __init__(
        self,
        decoder: PromptDecoder,
        pivot: torch.Tensor | None,
        prefix_ids: Sequence[Sequence[int]],
        rows: Sequence[int],
    ) -> None:
        self.decoder = decoder
        device = decoder.projection.weight.device
        lengths = [len(prefix_ids[row]) for row in rows]
        longest = max(lengths)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.ones(len(rows), longest, dtype=torch.long)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            ids[place, longest - length :] = torch.tensor(prefix_ids[row], dtype=torch.long)
            mask[place, : longest - length] = 0
        head = decoder.head_embeddings(None if pivot is None else pivot[list(rows)], len(rows))
        self.embeddings = torch.cat([head, decoder.lm.get_input_embeddings()(ids.to(device))], dim=1)
        self.mask: torch.Tensor | None = None
        if min(lengths) < longest:
            self.mask = torch.cat([mask.new_ones(len(rows), head.shape[1]), mask], dim=1).to(device)
        self.cache = DynamicCache(config=decoder.lm.config)
        self.step: LlamaStep | None = None

    def first(self) -> torch.Tensor:
        """Read the prefixes; return the logits of the first token, `(batch, vocabulary)`."""
        keep = {"logits_to_keep": 1} if self.decoder.lm_accepts("logits_to_keep") else {}
        logits = self._run(inputs_embeds=self.embeddings, **keep)
        if LlamaStep.supports(self.decoder.lm):
            self.step = LlamaStep(self.decoder.lm, self.cache, self.mask)
        return logits

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token a row, `(batch,)`; return the logits of the next, `(batch, vocabulary)`."""
        if self.step is not None:
            return self.step(tokens)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        return self._run(input_ids=tokens[:, None])

    def keep(self, places: torch.Tensor) -> None:
        """Go on with these rows alone."""
        if self.step is not None:
            self.step.keep(places)
            return
        self.cache.batch_select_indices(places)
        if self.mask is not None:
            self.mask = self.mask[places]

    def _run(self, **inputs: Any) -> torch.Tensor:
        if self.mask is not None and self.decoder.lm_accepts("position_ids"):
            length = next(iter(inputs.values())).shape[1]
            inputs["position_ids"] = (self.mask.cumsum(dim=1) - 1)[:, -length:]
        name = "cache" if self.decoder.lm_accepts("cache") else "past_key_values"  # its name since transformers 5.24
        inputs[name] = self.cache
        output = self.decoder.lm(attention_mask=self.mask, use_cache=True, **inputs)
        return output.logits[:, -1]
