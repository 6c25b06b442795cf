"""The decode loop: what it samples, what reinforcement learning computes again, and that batches do not matter."""

from __future__ import annotations

import pytest
import torch
from tiny_parts import USER_PROMPTS, llama_config, options_with
from transformers import GPT2Config

from prip.decoding.constraints import Constraints
from prip.decoding.decode import BEGINNINGS, decode
from prip.decoding.llama_step import LlamaStep
from prip.decoding.sampling import row_generator
from prip.errors import InputError
from prip.modeling import PromptDecoder
from prip.refiner import Refiner
from prip.text.prompts import modifiers_added

PROMPTS = [*USER_PROMPTS, "a golden castle of glass on a hill above the sea"]


@pytest.fixture(scope="module")
def constraints(tiny_processor) -> Constraints:
    return Constraints(tiny_processor.decoder_tokenizer)


@pytest.fixture(scope="module")
def pivot() -> torch.Tensor:
    return torch.randn(len(PROMPTS), 4, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


def run(decoder, processor, constraints, prompts, pivot, temperature=1.0, seed=0, whole_modifiers=False, **options):
    rows = constraints.begin(prompts, options_with(max_new_tokens=24, **options))
    generators = [row_generator(seed, prompt) for prompt in prompts]
    prefixes = [processor.prefix_ids(prompt) for prompt in prompts]
    return decode(
        decoder,
        constraints,
        pivot=pivot,
        prefix_ids=prefixes,
        rows=rows,
        options=options_with(temperature=temperature, top_p=1.0),
        generators=generators,
        whole_modifiers=whole_modifiers,
    )


def score(decoder, processor, prompts, pivot, actions):
    """Logits of each action by the plain forward pass, as training computes them: `(batch, length, vocabulary)`."""
    prefixes = [processor.prefix_ids(prompt) for prompt in prompts]
    length = max(len(p) + len(a) for p, a in zip(prefixes, actions, strict=True))
    ids, mask = torch.zeros(2, len(prompts), length, dtype=torch.long)
    for row, (prefix, own) in enumerate(zip(prefixes, actions, strict=True)):
        tokens = torch.tensor([*prefix, *own])
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    with torch.no_grad():
        logits = decoder(pivot, ids, mask).logits
    return [logits[row, len(p) : len(p) + len(a)] for row, (p, a) in enumerate(zip(prefixes, actions, strict=True))]


@pytest.mark.parametrize("family", ["llama", "gpt2", "llama-grouped"])
def test_log_probabilities_agree_with_the_forward_pass(
    family, tiny_model, tiny_processor, constraints, pivot, monkeypatch
) -> None:
    """What sampling saw at each step equals forward's log-probabilities under replay's masks, to 1e-4."""
    decoder = tiny_model.decoder
    if family != "llama":
        config = llama_config(num_key_value_heads=2)
        if family == "gpt2":
            config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=420, n_positions=256, initializer_range=0.2)
        torch.manual_seed(1)
        decoder = PromptDecoder.from_lm(config, tiny_processor.decoder_tokenizer, 4, 16).eval()
    assert LlamaStep.supports(decoder.lm) is (family != "gpt2")
    seen: list[list[torch.Tensor]] = [[] for _ in PROMPTS]
    active = list(range(len(PROMPTS)))

    import prip.decoding.decode as decoding

    original = decoding._Stream

    class Spy(original):
        def first(self):
            self.rows = list(active)
            return self._note(super().first())

        def next(self, tokens):
            return self._note(super().next(tokens))

        def keep(self, places):
            self.rows = [self.rows[place] for place in places]
            super().keep(places)

        def _note(self, logits):
            for row, own in zip(self.rows, logits, strict=True):
                seen[row].append(own.clone())
            return logits

    monkeypatch.setattr(decoding, "_Stream", Spy)
    actions = run(decoder, tiny_processor, constraints, PROMPTS, pivot, token_budget=18)
    assert len(active) >= 2 * sum(len(own) == max(map(len, actions)) for own in actions), "rows should be dropped early"
    masks = constraints.replay(PROMPTS, actions, options_with(token_budget=18, max_new_tokens=24))
    scored = score(decoder, tiny_processor, PROMPTS, pivot, actions)
    for row, own in enumerate(actions):
        for step, token in enumerate(own):
            mask = masks[row, step]
            sampled = seen[row][step].masked_fill(~mask, float("-inf")).log_softmax(-1)[token]
            again = scored[row][step].masked_fill(~mask, float("-inf")).log_softmax(-1)[token]
            assert abs(sampled - again) < 1e-4


def test_greedy_takes_the_likeliest_allowed_token(tiny_model, tiny_processor, constraints, pivot) -> None:
    actions = run(tiny_model.decoder, tiny_processor, constraints, PROMPTS, pivot, temperature=0.0)
    masks = constraints.replay(PROMPTS, actions, options_with(max_new_tokens=24))
    for row, logits in enumerate(score(tiny_model.decoder, tiny_processor, PROMPTS, pivot, actions)):
        best = logits.masked_fill(~masks[row, : len(logits)], float("-inf")).argmax(-1)
        assert best.tolist() == actions[row]


@pytest.mark.parametrize("whole_modifiers", [False, True])
@pytest.mark.parametrize("budget", [18, 75])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_do_not_depend_on_their_batch(
    tiny_model, tiny_processor, constraints, pivot, temperature, budget, whole_modifiers
) -> None:
    decoder = tiny_model.decoder
    options = {"temperature": temperature, "token_budget": budget, "whole_modifiers": whole_modifiers}
    together = run(decoder, tiny_processor, constraints, PROMPTS, pivot, **options)
    order = list(reversed(range(len(PROMPTS))))
    turned = run(decoder, tiny_processor, constraints, [PROMPTS[i] for i in order], pivot[order], **options)
    assert [turned[order.index(row)] for row in range(len(PROMPTS))] == together
    for row, prompt in enumerate(PROMPTS):
        alone = run(decoder, tiny_processor, constraints, [prompt], pivot[row : row + 1], **options)
        assert alone == [together[row]]


BANS = {
    "nothing": {},
    "hour": {"banned_terms": ("hour",)},
    "much": {"banned_terms": ("hour", "photo", "third", "color", "detail", "paper")},
    "small budget": {"token_budget": 16},
    "few tokens": {"max_new_tokens": 7},
}


@pytest.mark.parametrize("bans", BANS)
def test_modifiers_are_finished_as_the_decoder_means_them(refiner: Refiner, bans: str) -> None:
    """Inside a modifier each token is the likeliest of all that D may mean, banned or not, and stands where it may; at
    the text's end the likeliest is the end or a separator, and at a modifier's start one of the likeliest is there."""
    prompts = ["a cat", "a dog on the beach, watercolor", "an old house at night", "two red apples, photo"]
    options = {"max_new_tokens": 60, "token_budget": 75, "banned_terms": (), **BANS[bans]}
    actions = refiner.sampler.sample(prompts, [(0, 0)] * len(prompts), options_with(**options))
    inputs = refiner.processor.encode_user_prompts(prompts)
    pivot = refiner.model.pivot(*inputs)
    scored = score(refiner.model.decoder, refiner.processor, prompts, pivot, actions)
    constraints, table = refiner.sampler.constraints, refiner.sampler.constraints.table
    rows = constraints.begin(prompts, options_with(**options))
    for step in range(max(map(len, actions))):
        allowed, meant = (constraints.allowed(rows), constraints.meant(rows))
        for row, own in enumerate(actions):
            if step >= len(own):
                continue
            assert allowed[row, own[step]]
            best = scored[row][step].masked_fill(~meant[row], float("-inf")).argmax().item()
            if own[step] == table.eos:
                assert best in (table.eos, table.separator)
            elif step > 0 and own[step - 1] != table.separator:
                assert best == own[step], table.tokenizer.decode(own)
            elif step > 0:
                wished = scored[row][step].masked_fill(~meant[row], float("-inf")).topk(BEGINNINGS + 4).indices.tolist()
                assert own[step] in wished, "all before it are banned, or begin what was dropped"
        constraints.advance(rows, [own[step] if step < len(own) else table.eos for own in actions])
    assert all(row.done for row in rows)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_dropping_changes_nothing_where_nothing_is_in_the_way(refiner: Refiner, temperature: float) -> None:
    options = options_with(
        temperature=temperature, top_p=1.0, max_new_tokens=400, token_budget=1000, keep_attributes=False
    )
    sample, seeds = refiner.sampler.sample, [(0, 0)] * len(PROMPTS)
    assert sample(PROMPTS, seeds, options) == sample(PROMPTS, seeds, options, whole_modifiers=False)


def test_the_text_ends_where_all_that_is_meant_is_banned(refiner: Refiner) -> None:
    """With some wishes banned D takes the next one, with all it ends; the first modifier is there anyway."""
    table = refiner.sampler.constraints.table
    sample = refiner.sampler.sample
    (plain,) = sample(["a cat"], [(0, 0)], options_with())
    first = plain[: plain.index(table.separator) + 1]
    pivot = refiner.model.pivot(*refiner.processor.encode_user_prompts(["a cat"]))
    logits = score(refiner.model.decoder, refiner.processor, ["a cat"], pivot, [[*first, 0]])[0][-1]
    rows = refiner.sampler.constraints.begin(["a cat"], options_with())
    for token in first:
        refiner.sampler.constraints.advance(rows, [token])
    meant = refiner.sampler.constraints.meant(rows)[0]
    wishes = logits.masked_fill(~meant, float("-inf")).topk(BEGINNINGS).indices.tolist()
    assert plain[len(first)] == wishes[0]
    terms = [table.texts[token].strip() for token in wishes]
    options = options_with(banned_terms=[f" {term}" for term in terms[:-1]], keep_attributes=False)
    (fewer,) = sample(["a cat"], [(0, 0)], options)
    assert fewer[: len(first) + 1] == [*first, wishes[-1]]
    options = options_with(banned_terms=[f" {term}" for term in terms], keep_attributes=False)
    (none,) = sample(["a cat"], [(0, 0)], options)
    assert none == [*first[:-1], table.eos]


def test_what_is_dropped_leaves_no_trace(refiner: Refiner) -> None:
    """A banned modifier gives way to another one, and those behind it are others; none is a stump of what was meant."""
    known = set()
    for prompt in ["a cat", "a dog", "a castle", "a boat", "an old house", "a bird", "a robot", "a flower"]:
        for text in refiner.refine(prompt, num_alternatives=4):
            known.update(modifiers_added(prompt, text))
    whole, stumps = (
        modifiers_added("a cat", refiner.sampler.text("a cat", actions))
        for keeps in (True, False)
        for actions in refiner.sampler.sample(
            ["a cat"],
            [(0, 0)],
            options_with(banned_terms=["hour", "photo"]),
            whole_modifiers=keeps,
        )
    )
    assert set(whole) <= known
    assert not set(stumps) <= known, "the masks alone leave stumps here"


def test_the_first_modifier_is_finished_somehow(refiner: Refiner) -> None:
    """Where D's own first modifiers are all banned, there is still one."""
    table = refiner.sampler.constraints.table
    seconds = {text.strip() for text in table.texts if text.startswith(" ") and len(text) > 3}
    text = refiner.refine("a cat", banned_terms=sorted({f" {word}" for word in seconds}), max_new_tokens=4)
    assert len(modifiers_added("a cat", text)) == 1


def test_sampling_follows_the_probabilities(tiny_model, tiny_processor, constraints, pivot) -> None:
    """First tokens of 2,000 seeds against the masked softmax: total variation small, as for exact sampling."""
    prompts = ["a cat"] * 2000
    rows = constraints.begin(prompts, options_with(max_new_tokens=4))
    generators = [row_generator(seed, "a cat") for seed in range(2000)]
    prefixes = [tiny_processor.prefix_ids("a cat")] * 2000
    actions = decode(
        tiny_model.decoder,
        constraints,
        pivot=pivot[:1].expand(2000, -1, -1),
        prefix_ids=prefixes,
        rows=rows,
        options=options_with(temperature=0.7, top_p=1.0),
        generators=generators,
    )
    logits = score(tiny_model.decoder, tiny_processor, ["a cat"], pivot[:1], actions[:1])[0][0] / 0.7
    mask = constraints.allowed(constraints.begin(["a cat"], options_with(max_new_tokens=4)))[0]
    wanted = logits.masked_fill(~mask, float("-inf")).softmax(-1)
    found = torch.bincount(torch.tensor([own[0] for own in actions]), minlength=len(wanted)) / 2000
    expected_distance = 0.5 * (2 / torch.pi * wanted * (1 - wanted) / 2000).sqrt().sum()
    assert 0.5 * (found - wanted).abs().sum() < 2 * expected_distance


def test_samples_come_from_the_nucleus_of_what_is_allowed(refiner: Refiner) -> None:
    prompts = ["a cat"] * 200
    seeds = [(seed, 0) for seed in range(200)]
    firsts = {own[0] for own in refiner.sampler.sample(prompts, seeds, options_with(temperature=1.0, top_p=0.6))}
    pivot = refiner.model.pivot(*refiner.processor.encode_user_prompts(["a cat"]))
    logits = score(refiner.model.decoder, refiner.processor, ["a cat"], pivot, [[0]])[0]
    allowed = refiner.sampler.constraints.allowed(refiner.sampler.constraints.begin(["a cat"], options_with()))
    probabilities, order = logits.masked_fill(~allowed, float("-inf"))[0].softmax(-1).sort(descending=True)
    inside = order[probabilities.cumsum(0) - probabilities < 0.6].tolist()
    assert 1 < len(inside) < 20
    assert firsts <= set(inside)


def test_seeds_differ_and_repeat(tiny_model, tiny_processor, constraints, pivot) -> None:
    texts = [run(tiny_model.decoder, tiny_processor, constraints, PROMPTS, pivot, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_full_rows_get_no_actions(tiny_model, tiny_processor, constraints, pivot) -> None:
    actions = run(
        tiny_model.decoder, tiny_processor, constraints, ["a cat", "a dog on the beach"], pivot[:2], token_budget=7
    )
    assert actions[0][-1] == constraints.table.eos
    assert actions[1] == []


def test_decoding_without_a_pivot(tiny_model, tiny_processor, constraints, pivot) -> None:
    plain = run(tiny_model.decoder, tiny_processor, constraints, PROMPTS[:2], None, temperature=0.0)
    assert plain != run(tiny_model.decoder, tiny_processor, constraints, PROMPTS[:2], pivot[:2], temperature=0.0)
    logits = score(tiny_model.decoder, tiny_processor, PROMPTS[:1], None, plain[:1])[0]
    masks = constraints.replay(PROMPTS[:1], plain[:1], options_with(max_new_tokens=24))
    assert logits.masked_fill(~masks[0], float("-inf")).argmax(-1).tolist() == plain[0]


def test_a_decoder_in_training_mode_is_refused(tiny_model, tiny_processor, constraints, pivot) -> None:
    tiny_model.decoder.train()
    try:
        with pytest.raises(InputError, match="evaluation mode"):
            run(tiny_model.decoder, tiny_processor, constraints, PROMPTS[:1], pivot[:1])
    finally:
        tiny_model.decoder.eval()


def test_row_generator_depends_on_all_it_is_given() -> None:
    draws = [
        torch.rand(1, generator=row_generator(*key)).item()
        for key in [(0, "a cat"), (1, "a cat"), (0, "a dog"), (0, "a cat", 1), (0, "a cat", 0)]
    ]
    assert draws[0] == draws[4]
    assert len(set(draws)) == 4
