"""The rules of a system prompt, on random walks through what is allowed and on cases made by hand."""

from __future__ import annotations

import random
import re

import pytest
import torch
from tiny_parts import MODIFIERS, USER_PROMPTS, build_tokenizer, options_with, system_prompts

from prip.decoding.constraints import TRIES, Constraints
from prip.decoding.row_state import Row
from prip.errors import InputError
from prip.options import RefineOptions
from prip.processing import PripProcessor
from prip.text.clip_tokens import count_clip_tokens
from prip.text.words import words_of

LONG = (
    "a portrait of an old fisherman with a red hat standing on the beach at night in the rain with his dog and a boat"
)


@pytest.fixture(scope="module")
def constraints(tiny_processor: PripProcessor) -> Constraints:
    return Constraints(tiny_processor.decoder_tokenizer)


def encode(constraints: Constraints, text: str) -> list[int]:
    return constraints.table.tokenizer.encode(text, add_special_tokens=False)


def feed(constraints: Constraints, rows: list[Row], text: str) -> None:
    """Lead one row through a text, one token after another."""
    for token in encode(constraints, text):
        constraints.advance(rows, [token])


def allowed_texts(constraints: Constraints, rows: list[Row]) -> set[str]:
    mask = constraints.allowed(rows)[0]
    return {constraints.table.texts[token] for token in mask.nonzero().flatten().tolist()}


def walk(constraints: Constraints, prompt: str, source: random.Random, **options) -> list[int]:
    """Choose at random among what is allowed until the end token."""
    rows = constraints.begin([prompt], options_with(**options))
    actions: list[int] = []
    while not rows[0].done:
        choices = constraints.allowed(rows)[0].nonzero().flatten().tolist()
        assert choices, "a row that goes on must have a choice"
        ends = constraints.table.eos in choices and source.random() < 0.05
        comma = constraints.table.separator in choices and source.random() < 0.2
        token = constraints.table.eos if ends else constraints.table.separator if comma else source.choice(choices)
        actions.append(token)
        constraints.advance(rows, [token])
    return actions


def check_walk(constraints: Constraints, prompt: str, actions: list[int], budget: int, limit: int) -> str:
    """Assert every rule on a finished walk; return the refined prompt."""
    assert actions.count(constraints.table.eos) == 1
    assert actions[-1] == constraints.table.eos
    assert 1 <= len(actions) - 1 <= limit
    added = "".join(constraints.table.texts[token] for token in actions[:-1])
    text = PripProcessor.join(prompt, added)
    assert count_clip_tokens(text) <= budget
    modifiers = added.split(",")
    for modifier in modifiers:
        assert re.match(r" [^\W_]", modifier), repr(added)
        assert not modifier.endswith(" ")
        assert "  " not in modifier
    firsts = [words_of(modifier)[0] for modifier in modifiers]
    used = set(words_of(prompt))
    for modifier, first in zip(modifiers, firsts, strict=True):
        assert first not in used, repr(text)
        used.update(words_of(modifier))
    return text


@pytest.mark.parametrize("budget", [75, 40, 30])
@pytest.mark.parametrize("prompt", ["a cat", "Ünïcödé 猫 🐈!!", "a dog, golden hour.", LONG])
def test_random_walks_keep_every_rule(constraints: Constraints, prompt: str, budget: int) -> None:
    source = random.Random(f"{prompt}{budget}")
    for _ in range(20):
        rows = constraints.begin([prompt], options_with(token_budget=budget, max_new_tokens=50))
        assert rows[0].full == (budget - count_clip_tokens(prompt.rstrip(".,")) < 4)
        if not rows[0].full:
            actions = walk(constraints, prompt, source, token_budget=budget, max_new_tokens=50)
            check_walk(constraints, prompt, actions, budget, 50)


@pytest.mark.parametrize("free", [4, 5, 6, 9])
def test_the_smallest_room_is_used_and_never_exceeded(constraints: Constraints, free: int) -> None:
    budget = count_clip_tokens(LONG) + free
    source = random.Random(free)
    for _ in range(20):
        actions = walk(constraints, LONG, source, token_budget=budget, max_new_tokens=20)
        check_walk(constraints, LONG, actions, budget, 20)
    assert constraints.begin([LONG], options_with(token_budget=budget - free + 3))[0].full


@pytest.mark.parametrize(
    "added", [" golden", " golden hour", " golden hour light", " golden hour s", " golden hour li"]
)
def test_budget_is_exact_where_it_is_tight(constraints: Constraints, added: str) -> None:
    """Inside a word, a token fits exactly when the text with it does."""
    rows = constraints.begin(["a cat"], options_with(token_budget=6))
    feed(constraints, rows, added)
    allowed = allowed_texts(constraints, rows)
    table = constraints.table
    fitting = {
        token: count_clip_tokens("a cat," + added + table.texts[token]) <= 6
        for token in [*table.continues.nonzero()[0].tolist(), *table.begins_word.nonzero()[0].tolist()]
    }
    own = words_of(added)[-1]
    for token, fits in fitting.items():
        if words_of(table.texts[token]) != [own]:
            assert (table.texts[token] in allowed) == fits, (added, table.texts[token])
    if added != " golden":
        assert len(set(fitting.values())) == 2, "the case should have tokens that fit and tokens that do not"


def test_first_token_begins_a_modifier(constraints: Constraints) -> None:
    texts = allowed_texts(constraints, constraints.begin(["two red apples"], options_with()))
    assert " golden" in texts
    assert "," not in texts
    assert "" not in texts
    assert all(re.match(r" [^\W_]", text) for text in texts)


def test_end_and_comma_only_after_a_modifier(constraints: Constraints) -> None:
    rows = constraints.begin(["a cat"], options_with())
    assert not constraints.allowed(rows)[0, constraints.table.eos]
    feed(constraints, rows, " golden")
    mask = constraints.allowed(rows)[0]
    assert mask[constraints.table.eos]
    assert mask[constraints.table.separator]
    feed(constraints, rows, " hour,")
    mask = constraints.allowed(rows)[0]
    assert not mask[constraints.table.eos]
    assert not mask[constraints.table.separator]


def test_modifiers_do_not_begin_with_used_words(constraints: Constraints) -> None:
    rows = constraints.begin(["a Golden cat"], options_with())
    before = allowed_texts(constraints, rows)
    assert " sharp" in before
    assert not {" golden", " Golden", " cat"} & before
    feed(constraints, rows, " sharp focus,")
    after = allowed_texts(constraints, rows)
    assert not {" sharp", " focus"} & after
    assert " wide" in after


def test_a_used_word_cannot_be_spelled_in_pieces(constraints: Constraints) -> None:
    table = constraints.table
    piece = next(text for text in (" wi", " w") if text in table.texts)
    rows = constraints.begin(["a wide road"], options_with())
    rest = "wide"[len(piece) - 1 :]
    before = rows[0].unused.copy()
    before[table.texts.index(piece)] = True  # as if the tokenizer's own first token were another
    rows[0].unused = before
    constraints.advance(rows, [table.texts.index(piece)])
    word = rows[0].position.chunk
    for length in range(1, len(rest) + 1):
        if rest[:length] in table.texts and word + rest[:length] == "wide":
            assert rest[:length] not in allowed_texts(constraints, rows)
            return
    for letter in rest[:-1]:
        constraints.advance(rows, [table.texts.index(letter)])
    assert rest[-1] not in allowed_texts(constraints, rows)
    assert {"s", "r"} <= allowed_texts(constraints, rows)


def test_no_word_directly_follows_itself(constraints: Constraints) -> None:
    rows = constraints.begin(["a cat"], options_with())
    feed(constraints, rows, " golden")
    assert " golden" not in allowed_texts(constraints, rows)
    assert " hour" in allowed_texts(constraints, rows)


def test_what_may_be_meant_is_what_the_rules_of_a_modifier_leave(constraints: Constraints) -> None:
    table = constraints.table
    rows = constraints.begin(["a cat"], options_with(banned_terms=["hour"], token_budget=6))
    allowed, meant = (constraints.allowed(rows), constraints.meant(rows))
    assert meant.equal(allowed), "at its start, a modifier is chosen of those that may stand there"
    feed(constraints, rows, " golden")
    allowed, meant = (mask[0] for mask in (constraints.allowed(rows), constraints.meant(rows)))
    assert not (allowed & ~meant).any()
    hour, golden = table.texts.index(" hour"), table.texts.index(" golden")
    assert (allowed[hour], meant[hour]) == (False, True), "banned"
    assert (allowed[table.separator], meant[table.separator]) == (False, True), "no room for another"
    assert (allowed[golden], meant[golden]) == (False, False), "a word does not follow itself"
    assert meant.sum() == table.inside.sum() + 2 - len(table.whole_words("golden"))


def test_a_dropped_modifier_is_as_if_it_had_not_been(constraints: Constraints) -> None:
    prompt, options = "a dog", {"token_budget": 20, "max_new_tokens": 12}
    rows, fresh = (constraints.begin([prompt], options_with(**options)) for _ in range(2))
    for one in (rows, fresh):
        feed(constraints, one, " sharp focus,")
    dropped = encode(constraints, " golden hour li")
    for token in dropped:
        constraints.advance(rows, [token])
    assert constraints.drop(rows[0]) == len(dropped)
    wanted = constraints.allowed(fresh)
    assert wanted[0, dropped[0]], "it was allowed before"
    wanted[0, dropped[0]] = False
    assert constraints.allowed(rows).equal(wanted)
    for text in (" wide shot", " li", "ght"):
        feed(constraints, rows, text)
        feed(constraints, fresh, text)
        for masks in (constraints.allowed, constraints.meant):
            mask, other = masks(rows), masks(fresh)
            assert mask.equal(other)


def test_after_some_tries_the_text_ends_before_the_separator(constraints: Constraints) -> None:
    rows = constraints.begin(["a dog"], options_with(max_new_tokens=20))
    feed(constraints, rows, " sharp focus,")
    for number, text in enumerate([" golden hour", " wide", " highly detailed", " 8"][:TRIES], 1):
        feed(constraints, rows, text)
        assert constraints.drop(rows[0]) == len(encode(constraints, text)) + (number == TRIES)
        assert rows[0].done == (number == TRIES)


def test_after_some_tries_the_first_modifier_means_what_is_allowed(constraints: Constraints) -> None:
    rows = constraints.begin(["a dog"], options_with(banned_terms=["hour"]))
    starts = [" golden", " wide", " highly", " 8"][:TRIES]
    for text in starts:
        assert text in allowed_texts(constraints, rows)
        feed(constraints, rows, text)
        constraints.drop(rows[0])
    assert not rows[0].done
    assert set(starts) <= allowed_texts(constraints, rows)
    feed(constraints, rows, " golden")
    allowed, meant = (constraints.allowed(rows), constraints.meant(rows))
    assert meant.equal(allowed)
    feed(constraints, rows, ",")
    feed(constraints, rows, " wide")
    assert not torch.equal(constraints.allowed(rows), constraints.meant(rows)), "those behind it may be dropped again"


def test_line_breaks_special_tokens_and_parts_of_characters_never(constraints: Constraints) -> None:
    table = constraints.table
    for character in ("\n", "\0", "\u2028"):
        assert character not in table.texts
    rows = constraints.begin(["a cat"], options_with())
    feed(constraints, rows, " golden")
    mask = constraints.allowed(rows)[0]
    assert not mask[table.tokenizer.pad_token_id]
    assert not mask[table.tokenizer.bos_token_id]
    lead = table.tokenizer.convert_tokens_to_ids("\u00c3")  # byte 0xC3, the first half of é
    assert not mask[lead]


@pytest.mark.parametrize("term", ["golden hour", "GOLDEN  Hour", "our", "o", "n h"])
def test_banned_terms_never_come_about(constraints: Constraints, term: str) -> None:
    source = random.Random(term)
    plain = " ".join(term.lower().split())
    for _ in range(25):
        actions = walk(constraints, "a dog", source, banned_terms=[term], max_new_tokens=40)
        text = check_walk(constraints, "a dog", actions, 75, 40)
        assert plain not in text.lower().removeprefix("a dog,")


def test_banned_term_is_stopped_at_its_first_and_at_its_last_token(constraints: Constraints) -> None:
    rows = constraints.begin(["a cat"], options_with(banned_terms=["sharp focus"]))
    assert not {" sharp", " Sharp"} & allowed_texts(constraints, rows)
    feed(constraints, rows, " very sharp")
    assert " focus" not in allowed_texts(constraints, rows)
    assert " light" in allowed_texts(constraints, rows)


def test_max_new_tokens_leave_only_the_end(constraints: Constraints) -> None:
    rows = constraints.begin(["a cat"], options_with(max_new_tokens=4))
    feed(constraints, rows, " golden hour light soft")
    assert constraints.allowed(rows)[0].nonzero().flatten().tolist() == [constraints.table.eos]
    assert constraints.begin(["a cat"], options_with(max_new_tokens=3))[0].full


def test_comma_needs_room_for_a_modifier(constraints: Constraints) -> None:
    for budget, may in ((8, True), (7, False)):
        rows = constraints.begin(["a cat"], options_with(token_budget=budget))
        feed(constraints, rows, " golden")  # a cat , golden = 4 tokens
        assert constraints.allowed(rows)[0, constraints.table.separator].item() is may


def test_a_prompt_that_uses_up_every_beginning_still_gets_a_modifier(constraints: Constraints) -> None:
    starts = [constraints.table.texts[token].strip() for token in constraints.table.starts.nonzero()[0]]
    prompt = " ".join(starts)
    rows = constraints.begin([prompt], options_with(token_budget=count_clip_tokens(prompt) + 20))
    assert not rows[0].full
    assert constraints.allowed(rows).any()


def test_replay_gives_the_masks_that_sampling_saw(constraints: Constraints) -> None:
    prompts = ["a cat", LONG, "a dog"]
    budget = count_clip_tokens(LONG) + 3
    options = {"token_budget": budget, "max_new_tokens": 30, "banned_terms": ["hour"]}
    rows = constraints.begin(prompts, options_with(**options))
    assert [row.full for row in rows] == [False, True, False]
    source, actions, seen = random.Random(3), [[], [], []], [[], [], []]
    while not all(row.done for row in rows):
        masks = constraints.allowed(rows)
        tokens = [source.choice(mask.nonzero().flatten().tolist()) for mask in masks]
        for number, row in enumerate(rows):
            if not row.done:
                actions[number].append(tokens[number])
                seen[number].append(masks[number])
        constraints.advance(rows, tokens)
    replayed = constraints.replay(prompts, actions, options_with(**options))
    assert replayed.shape == (3, max(map(len, actions)), constraints.table.size)
    for row in range(3):
        for step, mask in enumerate(seen[row]):
            assert replayed[row, step].equal(mask)
        assert replayed[row, len(actions[row]) :].all()


def test_replay_refuses_what_was_not_allowed(constraints: Constraints) -> None:
    with pytest.raises(InputError, match=r"actions\[0\]\[0\] = 1 is not allowed"):
        constraints.replay(["a cat"], [[constraints.table.eos]], options_with())


def test_rows_are_independent_of_their_batch(constraints: Constraints) -> None:
    prompts = ["a cat", LONG, "a dog on the beach"]
    together = constraints.allowed(constraints.begin(prompts, options_with()))
    for row, prompt in enumerate(prompts):
        assert together[row].equal(constraints.allowed(constraints.begin([prompt], options_with()))[0])
    assert constraints.allowed(constraints.begin(prompts, options_with())[2:])[0].equal(together[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_budget": 0}, "token_budget: expected a whole number of at least 1, got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"banned_terms": "hour"}, "banned_terms: expected a list"),
        ({"banned_terms": [" "]}, "at least one character"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RefineOptions(**options)


def test_wider_logits_than_tokenizer_are_masked(tiny_processor: PripProcessor) -> None:
    wide = Constraints(tiny_processor.decoder_tokenizer, vocabulary_size=512)
    mask = wide.allowed(wide.begin(["a cat"], options_with()))
    assert mask.shape == (1, 512)
    assert not mask[:, len(tiny_processor.decoder_tokenizer) :].any()


def test_metaspace_vocabulary_works_too() -> None:
    """Llama 2 and T5 write spaces as a low line; decoding their tokens one by one would lose them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    texts = [text.replace(",", " ,") for text in system_prompts()]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], show_progress=False)
    backend.train_from_iterator([*texts, *MODIFIERS, *USER_PROMPTS, ","], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    constraints = Constraints(tokenizer)
    source = random.Random(5)
    for _ in range(10):
        check_walk(constraints, "a cat", walk(constraints, "a cat", source, max_new_tokens=30), 75, 30)


def test_tokenizer_without_a_comma_is_refused() -> None:
    tokenizer = build_tokenizer(["a b"], 300)
    backend = tokenizer.backend_tokenizer
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: id_ for id_, token in enumerate(t for t in backend.get_vocab() if t != ",")}
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [])), eos_token="</s>")
    with pytest.raises(InputError, match="exactly a comma"):
        Constraints(bare)
