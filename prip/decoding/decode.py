"""Constrained decoding: the prompt decoder's tokens, chosen one by one with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, TopPLogitsWarper

from ..errors import InputError
from .llama_step import LlamaStep
from .mask_bits import pack_bits
from .sampling import drawn, likeliest

if TYPE_CHECKING:
    from ..modeling import PromptDecoder
    from ..options import RefineOptions
    from .constraints import Constraints
    from .row_state import Row

COLDEST = 1e-6
"""Lowest temperature that is divided by; below it, logits would not stay finite."""
CANDIDATES = 32
"""Number of most likely tokens that are counted near the token budget of a large vocabulary."""
BEGINNINGS = 4
"""Number of most likely first tokens to try for a modifier; if none is allowed, the text ends."""


@torch.no_grad()
def decode(
    decoder: PromptDecoder,
    constraints: Constraints,
    *,
    pivot: torch.Tensor | None,
    prefix_ids: Sequence[Sequence[int]],
    rows: Sequence[Row],
    options: RefineOptions,
    generators: Sequence[torch.Generator] | None = None,
    whole_modifiers: bool = True,
) -> list[list[int]]:
    """Continue each prefix until its row is done.

    Args:
        decoder: The prompt decoder, in evaluation mode.
        constraints: The rules that mask its tokens.
        pivot: `(batch, pivot_length, pivot_width)`, or None for a prompt decoder that reads no pivot.
        prefix_ids: Token ids of each prefix, from `PripProcessor.prefix_ids`.
        rows: One for each prefix, from `Constraints.begin`; changed.
        options: Read are temperature and top_p. Temperature 0 takes the most likely token; top_p below 1 samples
            from the nucleus (Holtzman et al. 2020).
        generators: Source of randomness for each row, on the CPU: a text does not depend on its batch. Needed for
            temperatures above 0.
        whole_modifiers: Drop a modifier that the prompt decoder cannot finish as it means to, because of a ban or
            the token budget, and let it begin another. Otherwise each token is drawn from those allowed, as
            reinforcement learning needs it: `Row.masks` then holds the masks that its probabilities refer to.

    Returns:
        For each row its actions: token ids that end with the end token; none for rows that are full.

    Raises:
        InputError: The prompt decoder is in training mode, with its dropout on.
    """
    if decoder.training:
        raise InputError("decoder: expected evaluation mode, got training mode; call decoder.eval()")
    assert options.temperature == 0 or generators is not None, "sampling needs one generator per row"
    actions: list[list[int]] = [[] for _ in prefix_ids]
    while left := [index for index, row in enumerate(rows) if not row.done]:  # again for dropped modifiers
        texts = [[*prefix_ids[index], *actions[index]] for index in left]
        stream = _Stream(decoder, None if pivot is None else pivot[left], texts)
        logits, going = stream.first(), left
        while going:
            now = [rows[index] for index in going]
            sources = [generators[index] for index in going] if generators is not None else []
            candidates = _candidates(constraints, logits, now, whole_modifiers)
            if whole_modifiers:
                chosen = _chosen(logits, constraints.meant(now, candidates), now, sources, options)
                known = zip(candidates, chosen.tolist(), strict=True)
                allowed = constraints.allowed(now, [[*likely, *own] for likely, own in known])
            else:
                allowed = constraints.allowed(now, candidates)
                chosen = _chosen(logits, allowed, now, sources, options)
                for row, mask in zip(now, pack_bits(allowed), strict=True):
                    row.masks.append(mask)
            may = (allowed.gather(1, chosen.clamp(min=0)) & (chosen >= 0)).tolist()
            continues = [
                _take(constraints, rows[index], tokens, usable, actions[index])
                for index, tokens, usable in zip(going, chosen.tolist(), may, strict=True)
            ]
            if not all(continues):
                kept = [position for position, goes_on in enumerate(continues) if goes_on]
                going = [going[position] for position in kept]
                stream.keep(kept)
            if going:
                logits = stream.next(torch.tensor([actions[index][-1] for index in going], device=logits.device))
    return actions


def _candidates(
    constraints: Constraints, logits: torch.Tensor, rows: Sequence[Row], whole_modifiers: bool
) -> list[list[int]]:
    """Return the candidates of each row, as in `Constraints.allowed`; none for rows whose tokens are chosen first."""
    candidates: list[list[int]] = [[] for _ in rows]
    needed = [number for number, row in enumerate(rows) if not whole_modifiers or row.by_mask]
    if tight := [number for number in needed if constraints.tight(rows[number])]:
        masks = torch.stack([constraints.grammar(rows[number]) for number in tight]).to(logits.device)
        tokens = likeliest(logits[tight].float().masked_fill_(~masks, float("-inf")), CANDIDATES)
        for number, own in zip(tight, tokens.tolist(), strict=True):
            candidates[number] = own
    return candidates


def _chosen(
    logits: torch.Tensor,
    mask: torch.Tensor,
    rows: Sequence[Row],
    generators: Sequence[torch.Generator],
    options: RefineOptions,
) -> torch.Tensor:
    """Return the tokens to try in turn under a mask `(batch, vocabulary)`, as int64 `(batch, BEGINNINGS)` on the CPU.

    Above temperature 0 they are sampled without replacement, more than one only where a modifier may begin. -1 fills up
    rows with fewer tokens. A row's generator gives as many numbers whatever the row needs.
    """
    scores = logits.float().masked_fill_(~mask.to(logits.device), float("-inf"))
    if options.temperature == 0:
        return likeliest(scores, BEGINNINGS).cpu()
    scores /= max(options.temperature, COLDEST)
    if options.top_p < 1:
        scores = TopPLogitsWarper(options.top_p)(torch.empty(0, dtype=torch.long), scores)
    uniforms = torch.stack([torch.rand(BEGINNINGS, generator=source, dtype=torch.float64) for source in generators])
    return drawn(scores, uniforms, torch.tensor([row.at_separator for row in rows])).cpu()


def _take(
    constraints: Constraints, row: Row, tokens: Sequence[int], allowed: Sequence[bool], actions: list[int]
) -> bool:
    """Advance a row by the first usable of its chosen tokens; return whether the row continues from there."""
    table, token = constraints.table, tokens[0]
    if row.at_separator:
        if not any(allowed):
            row.done = True
            actions[-1] = table.eos
            return False
        token = tokens[allowed.index(True)]
    elif not allowed[0] and token == table.separator:
        token = table.eos
    elif not allowed[0]:
        del actions[-constraints.drop(row) :]
        if row.done:
            actions.append(table.eos)
        return False
    actions.append(token)
    constraints.advance([row], [token])
    return not row.done


class _Stream:
    """The language model's next logits, step by step, for texts of different lengths.

    Shorter texts are padded between the head and the text; positions count real tokens only. Rows that have ended stay
    in the batch until half of them have, because removing rows copies the cache.
    """

    def __init__(self, decoder: PromptDecoder, pivot: torch.Tensor | None, texts: Sequence[Sequence[int]]) -> None:
        self.decoder = decoder
        device = decoder.projection.weight.device
        longest = max(map(len, texts))
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        mask = torch.ones(len(texts), longest, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, longest - len(text) :] = torch.tensor(text, dtype=torch.long)
            mask[row, : longest - len(text)] = 0
        head = decoder.head_embeddings(pivot, len(texts))
        self.embeddings = torch.cat([head, decoder.lm.get_input_embeddings()(ids.to(device))], dim=1)
        self.mask: torch.Tensor | None = None
        if not mask.all():
            self.mask = torch.cat([mask.new_ones(len(texts), head.shape[1]), mask], dim=1).to(device)
        self.cache = DynamicCache(config=decoder.lm.config)
        self.step: LlamaStep | None = None
        self.size = len(texts)
        self.seen = list(range(len(texts)))

    def first(self) -> torch.Tensor:
        """Read the texts; return the logits of the first token, `(batch, vocabulary)`."""
        keep = {"logits_to_keep": 1} if self.decoder.lm_accepts("logits_to_keep") else {}
        logits = self._run(inputs_embeds=self.embeddings, **keep)
        if LlamaStep.supports(self.decoder.lm):
            self.step = LlamaStep(self.decoder.lm, self.cache, self.mask)
        return logits

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token per row, `(batch,)`; return the logits of the next, `(batch, vocabulary)`."""
        if len(self.seen) == self.size:
            return self._next(tokens)
        every = tokens.new_zeros(self.size)
        every[self.seen] = tokens
        return self._next(every)[self.seen]

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows only."""
        self.seen = [self.seen[row] for row in rows]
        if not self.seen or len(self.seen) > self.size // 2:
            return
        kept = torch.tensor(self.seen, device=self.embeddings.device)
        self.size, self.seen = len(self.seen), list(range(len(self.seen)))
        if self.step is not None:
            self.step.keep(kept)
            return
        self.cache.batch_select_indices(kept)
        if self.mask is not None:
            self.mask = self.mask[kept]

    def _next(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.step is not None:
            return self.step(tokens)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        return self._run(input_ids=tokens[:, None])

    def _run(self, **inputs: Any) -> torch.Tensor:
        if self.mask is not None and self.decoder.lm_accepts("position_ids"):
            length = next(iter(inputs.values())).shape[1]
            inputs["position_ids"] = (self.mask.cumsum(dim=1) - 1)[:, -length:]
        name = "cache" if self.decoder.lm_accepts("cache") else "past_key_values"  # its name since transformers 5.24
        inputs[name] = self.cache
        output = self.decoder.lm(attention_mask=self.mask, use_cache=True, **inputs)
        return output.logits[:, -1]
