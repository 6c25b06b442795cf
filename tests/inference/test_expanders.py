"""Other people's language models as refiners: tiny ones of their architectures, decoded in earnest."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_expanders import END_TOKENS, save_model
from tiny_parts import USER_PROMPTS
from tiny_pipelines import t5_like_tokenizer

from prip.errors import CheckpointError, InputError, PripWarning
from prip.inference.evaluation.expanders.answers import RefinementError, Wording
from prip.inference.evaluation.expanders.decoding import RepetitionPenalty
from prip.inference.evaluation.kinds.registry import REFINERS, Context

FAMILIES = ("gpt2", "llama", "t5")
TEMPLATE = "{prompt} Rephrase:"
CONTEXT = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
DECODINGS = {
    "greedy": {},
    "beams": {"num_beams": 4, "length_penalty": -1.0},
    "sampled": {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95},
    "penalised": {"repetition_penalty": 1.7},
    "sampled and penalised": {"do_sample": True, "min_p": 0.05, "repetition_penalty": 1.3},
}


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny models by family."""
    root = tmp_path_factory.mktemp("expanders")
    return {family: save_model(root / family, family) for family in FAMILIES}


def made_refiner(kind: str, place: Path, **options):
    return REFINERS.make("expander", {"kind": kind, "place": str(place), **options}, CONTEXT)


def refiner(places: dict[str, Path], family: str, **options):
    kind = "seq2seq-lm" if family == "t5" else "causal-lm"
    return made_refiner(
        kind, places[family], **{"template": TEMPLATE, "max_new_tokens": 12, "first_line": False, **options}
    )


class AsItIs(Wording):
    """Takes every answer for a prompt: what random weights write may be nothing."""

    def refined(self, user_prompt: str, answer: str) -> str:
        return answer


def decoder(places: dict[str, Path], family: str, **options):
    made = refiner(places, family, **options)
    made.wording = AsItIs(TEMPLATE)
    return made


@pytest.mark.parametrize("decoding", DECODINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_does_not_depend_on_the_batch(places: dict[str, Path], family: str, decoding: str) -> None:
    made = decoder(places, family, **DECODINGS[decoding])
    seeds = [7 * place for place in range(len(USER_PROMPTS))]
    together = made(USER_PROMPTS, seeds)
    assert together == made(USER_PROMPTS[::-1], seeds[::-1])[::-1]
    made.batch_size = 1
    assert together == made(USER_PROMPTS, seeds)
    assert len(set(together)) > 1 and len({len(made.tokenizer(text)["input_ids"]) for text in together}) > 1


@pytest.mark.parametrize("decoding", ["greedy", "beams", "penalised"])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_transformers_itself(places: dict[str, Path], family: str, decoding: str) -> None:
    made = decoder(places, family, **DECODINGS[decoding])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": END_TOKENS}
    options |= DECODINGS[decoding]
    for prompt in USER_PROMPTS[:3]:
        ids = made.tokenizer(TEMPLATE.replace("{prompt}", prompt), return_tensors="pt")["input_ids"]
        own = made.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0]
        new = own[1 if family == "t5" else ids.shape[1] :].tolist()
        ends = [place for place, token in enumerate(new) if token in END_TOKENS]
        text = made.tokenizer.decode(new[: ends[0]] if ends else new, skip_special_tokens=True)
        assert made([prompt], [0]) == [text]


def test_samples_follow_the_models_probabilities(places: dict[str, Path]) -> None:
    made = refiner(places, "gpt2", do_sample=True, max_new_tokens=1, temperature=0.7, top_k=5, keep_prompt=True)
    made.batch_size = 1000
    prompt, count = USER_PROMPTS[0], 4000
    ids = made.tokenizer(TEMPLATE.replace("{prompt}", prompt), return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = made.model(ids).logits[0, -1] / 0.7
    likely = logits.topk(5)
    expected = likely.values.softmax(0)
    texts = [
        made.tokenizer.decode([*ids[0].tolist(), token])[len(made.tokenizer.decode(ids[0])) :]
        for token in likely.indices
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PripWarning)  # a space as the one token adds nothing
        drawn = Counter(text.removeprefix(prompt) for text in made([prompt] * count, range(count)))
    assert set(drawn) <= {text.rstrip() for text in texts}
    for text, probability in zip(texts, expected.tolist(), strict=True):
        if [one.rstrip() for one in texts].count(text.rstrip()) == 1:
            deviation = (probability * (1 - probability) / count) ** 0.5
            assert abs(drawn[text.rstrip()] / count - probability) < 5 * deviation


def test_seeds_count_when_it_samples_and_only_then(places: dict[str, Path]) -> None:
    sampled = decoder(places, "gpt2", do_sample=True)
    texts = sampled([USER_PROMPTS[0]] * 6, range(6))
    assert sampled.sampled and len(set(texts)) == 6
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    assert sampled([USER_PROMPTS[0]], [4]) == [texts[4]], "the global stream plays no part"
    torch.random.set_rng_state(state)
    greedy = decoder(places, "gpt2")
    assert not greedy.sampled and len(set(greedy([USER_PROMPTS[0]] * 3, range(3)))) == 1


def test_the_models_own_decoding_settings_play_no_part(places: dict[str, Path], tmp_path: Path) -> None:
    folder = save_model(tmp_path / "own", "gpt2")
    path = folder / "generation_config.json"
    own = {"do_sample": True, "temperature": 3.0, "num_beams": 2, "repetition_penalty": 5.0, "suppress_tokens": [5, 6]}
    own |= {"no_repeat_ngram_size": 1, "max_length": 20}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    options = {"template": TEMPLATE, "max_new_tokens": 12, "first_line": False}
    changed = made_refiner("causal-lm", folder, **options)
    changed.wording = AsItIs(TEMPLATE)
    assert changed(USER_PROMPTS, [0] * 8) == decoder(places, "gpt2")(USER_PROMPTS, [0] * 8)


@pytest.mark.parametrize("spelling", ["bytes", "metaspace"])
def test_a_kept_prompt_is_continued_with_the_space_that_its_tokens_say(places: dict[str, Path], spelling: str) -> None:
    made = refiner(places, "gpt2", template="{prompt}", keep_prompt=True)
    if spelling == "metaspace":  # drops the space that begins a text
        made.tokenizer = t5_like_tokenizer()
        assert made.tokenizer.decode(made.tokenizer("on the beach")["input_ids"], skip_special_tokens=True)[0] == "o"
    whole, start = (
        [i for i in made.tokenizer(text)["input_ids"] if i != 1] for text in ("a dog on the beach", "a dog")
    )
    assert whole[: len(start)] == start
    made._ends = END_TOKENS[:1]
    written = made._written(start, [*whole[len(start) :], END_TOKENS[0], 7])
    assert made.wording.refined("a dog", written) == "a dog on the beach"


def test_generation_ends_at_a_stop_string(places: dict[str, Path]) -> None:
    whole = refiner(places, "gpt2", max_new_tokens=40)(USER_PROMPTS, [0] * 8)
    mark = whole[0][len(whole[0]) // 2 :][:4]
    made = refiner(places, "gpt2", max_new_tokens=40, stop=[mark])
    assert made(USER_PROMPTS, [0] * 8) == [text.split(mark)[0].strip() for text in whole]
    steps: list[int] = []
    made.model.register_forward_hook(lambda *parts: steps.append(1))
    made(USER_PROMPTS[:1], [0])
    assert 1 < len(steps) < 40, "nothing is decoded behind it"


def test_the_penalty_counts_no_padding() -> None:
    real = torch.tensor([[False, True], [True, True]])
    scores = torch.tensor([[2.0, -1.0, 3.0, 1.0], [2.0, -1.0, 3.0, 1.0]])
    made = RepetitionPenalty(2.0, real)(torch.tensor([[0, 1, 3], [0, 1, 3]]), scores)
    assert made.tolist() == [[2.0, -2.0, 3.0, 0.5], [1.0, -2.0, 3.0, 0.5]]


def test_a_better_beam_that_says_nothing_gives_way(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = refiner(places, "gpt2", num_beams=3)
    answers = [["  ", "a cat, golden hour", "a cat"], ["\n", '""', " "]]
    monkeypatch.setattr(made, "_answers", lambda rows, texts, seeds: answers[: len(rows)])
    assert made(["a cat"], [0]) == ["a cat, golden hour"]
    with pytest.raises(RefinementError, match="the answer for 'a dog' holds no prompt"):
        made(["a cat", "a dog"], [0, 0])


ANSWERS = {
    "stripped": ({}, "  a cat, bokeh \n", "a cat, bokeh"),
    "first line": ({}, "a cat, bokeh\nHope this helps!", "a cat, bokeh"),
    "all lines": ({"first_line": False}, "a cat,\nbokeh", "a cat,\nbokeh"),
    "quoted": ({}, '"a cat, bokeh"', "a cat, bokeh"),
    "quotes within": ({}, '"Cat" and "dog"', '"Cat" and "dog"'),
    "behind a mark": ({"after": "long:"}, "cat, tree\nlong: a cat in a tree", "a cat in a tree"),
    "before a stop": ({"stop": ("###", "User:")}, "a cat User: more ### x", "a cat"),
    "continued": ({"keep_prompt": True}, ", bokeh \nmore", "a cat, bokeh"),
    "unicode": ({}, "“eine Katze, Öl auf Leinwand 🐈”", "eine Katze, Öl auf Leinwand 🐈"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_are_read(case: str) -> None:
    options, answer, refined = ANSWERS[case]
    assert Wording(**options).refined("a cat", answer) == refined


def test_no_answer_is_never_the_prompt_as_if_refined() -> None:
    for answer in ("", " \n ", '""', "###a cat"):
        with pytest.raises(RefinementError, match="the answer for 'a cat' holds no prompt"):
            Wording(stop=("###",)).refined("a cat", answer)
    with pytest.raises(RefinementError, match="the answer for 'a cat' holds no 'long:': 'cat, tree'"):
        Wording(after="long:").refined("a cat", "cat, tree")
    with pytest.warns(PripWarning, match="the model added nothing to 'a cat'"):
        assert Wording(keep_prompt=True).refined("a cat", "\nmore") == "a cat"


BAD_OPTIONS = [
    ({"template": "Rephrase:"}, "template: expected a text that holds {prompt} once"),
    ({"stop": "###"}, "stop: expected a list"),
    ({"temperature": 0.5}, "temperature: expected 1.0 without do_sample: true, got 0.5"),
    ({"length_penalty": -1.0}, "length_penalty: expected 1.0 without num_beams above 1, got -1.0"),
    ({"num_beams": 4, "do_sample": True}, "num_beams: expected 1 with do_sample, got 4"),
    ({"max_new_tokens": 0}, "max_new_tokens.* a whole number of at least 1,.* 0"),
    ({"do_sample": True, "top_p": 1.5}, "top_p: expected a number from 1e-06 to 1, got 1.5"),
    ({"batch_size": 0}, "batch_size.* a whole number"),
    ({"dtype": "float8"}, "dtype: expected one of float32"),
    ({"keep_prompt": True, "after": "long:"}, "after: expected none with keep_prompt"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_named(places: dict[str, Path], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refiner(places, "gpt2", **options)


def test_a_prompt_that_is_too_long_is_named(places: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"expander: expected at most 192 tokens with the answer, got \d+: 'cat cat "):
        refiner(places, "gpt2")(["a cat", "cat " * 190], [0, 0])


def test_what_is_no_such_model_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a causal language model known to transformers, got 't5'"):
        made_refiner("causal-lm", places["t5"])
    with pytest.raises(CheckpointError, match="expected a seq2seq language model known to transformers, got 'gpt2'"):
        made_refiner("seq2seq-lm", places["gpt2"])
    pickled = save_model(tmp_path / "pickled", "gpt2")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        CheckpointError, match="expected a safetensors file, got none: pytorch_model.bin is a pickle, which is never"
    ):
        made_refiner("causal-lm", pickled)
    foreign = save_model(tmp_path / "foreign", "gpt2")
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "theirs.Model"}}))
    with pytest.raises(CheckpointError, match="it names code or files of its own"):
        made_refiner("causal-lm", foreign)
    with pytest.raises(CheckpointError, match="has more tokens than the model"):
        small = save_model(tmp_path / "small", "gpt2")
        words = json.loads((small / "tokenizer.json").read_text())
        words["added_tokens"] += [{**words["added_tokens"][0], "id": 420 + i, "content": f"<{i}>"} for i in range(9)]
        (small / "tokenizer.json").write_text(json.dumps(words))
        made_refiner("causal-lm", small)


def test_weights_as_gpt2_was_published_are_read(places: dict[str, Path], tmp_path: Path) -> None:
    """The Hub's GPT-2 has no prefix before its tensors, no head, and masks that nobody needs."""
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path / "old", "gpt2")
    weights = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): weight for name, weight in weights.items() if "lm_head" not in name}
    old |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 192, 192).tril() for layer in range(2)}
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    made = made_refiner("causal-lm", folder, template=TEMPLATE, max_new_tokens=12)
    made.wording = AsItIs(TEMPLATE)
    assert made(USER_PROMPTS, [0] * 8) == decoder(places, "gpt2")(USER_PROMPTS, [0] * 8)


@pytest.mark.parametrize("option", ["keep_prompt", "after"])
def test_a_sequence_to_sequence_answer_replaces_the_prompt(places: dict[str, Path], option: str) -> None:
    with pytest.raises(InputError, match=f"{option}: expected none for a seq2seq-lm"):
        made_refiner("seq2seq-lm", places["t5"], **{option: True if option == "keep_prompt" else "long:"})
