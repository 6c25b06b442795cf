"""`refine` and `Refiner`: what a user relies on."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
import re
import shutil
import warnings
from dataclasses import fields, replace

import pytest
import torch
from tiny_parts import USER_PROMPTS

import prip
from prip.errors import InputError, PripWarning
from prip.modeling import PromptDecoder
from prip.options import RefineOptions
from prip.protocols import PromptRefiner
from prip.refiner import Refiner, last_change
from prip.text.clip_tokens import count_clip_tokens

PROMPTS = [*USER_PROMPTS, "Ünïcödé 猫 🐈", "a cat.", "  two   dogs ,", "कुत्ता", "zxqv brrt 7"]
LONG = "a very long prompt about many things " * 12


@pytest.fixture(scope="module")
def refiner(tiny_checkpoint) -> Refiner:
    return Refiner.from_pretrained(tiny_checkpoint, device="cpu")


def test_a_list_of_seeds_gives_each_prompt_its_own(refiner: Refiner) -> None:
    prompts, sampled = ["a cat", "a cat", "a dog"], {"temperature": 1.0, "max_new_tokens": 12}
    texts = refiner.refine(prompts, seed=[4, 5, 4], **sampled)
    assert texts == [
        refiner.refine(prompt, seed=seed, **sampled) for prompt, seed in zip(prompts, (4, 5, 4), strict=True)
    ]
    assert texts[0] != texts[1]
    assert refiner.refine("a cat", seed=(4,), **sampled) == texts[0]


def test_a_list_of_seeds_must_fit_the_prompts(refiner: Refiner) -> None:
    with pytest.raises(InputError, match="seed: expected one for each of the 2 prompts, got 3"):
        refiner.refine(["a cat", "a dog"], seed=[1, 2, 3])
    with pytest.raises(InputError, match=r"seed\[1\]: expected a whole number, got 'x'"):
        refiner.refine(["a cat", "a dog"], seed=[1, "x"])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_words_stay_and_a_modifier_is_added(refiner: Refiner, prompt: str) -> None:
    text = refiner.refine(prompt)
    own = prompt.rstrip(" .,")
    assert text.startswith(own + ", ")
    assert len(text) > len(own) + 2
    assert count_clip_tokens(text) <= 75


def test_str_gives_str_and_list_gives_list(refiner: Refiner) -> None:
    assert isinstance(refiner.refine("a cat"), str)
    assert refiner.refine(["a cat"]) == [refiner.refine("a cat")]
    assert refiner.refine([]) == []
    assert refiner.refine(("a cat", "a dog"))[0] == refiner.refine("a cat")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_same_seed_same_text_in_any_batch(refiner: Refiner, temperature: float) -> None:
    options = {"temperature": temperature, "seed": 5, "max_new_tokens": 20}
    alone = {prompt: refiner.refine(prompt, **options) for prompt in PROMPTS}
    shuffled = PROMPTS * 2
    random.Random(0).shuffle(shuffled)
    for batch_size in (1, 3, 256):
        assert refiner.refine(shuffled, batch_size=batch_size, **options) == [alone[prompt] for prompt in shuffled]


def test_seed_matters_when_sampling_only(refiner: Refiner) -> None:
    assert refiner.refine("a cat", seed=1) == refiner.refine("a cat", seed=2)
    assert refiner.refine("a cat", seed=1, temperature=1.0) != refiner.refine("a cat", seed=2, temperature=1.0)


def test_a_call_needs_no_seeds(refiner: Refiner) -> None:
    assert refiner("a cat") == refiner(["a cat"]) == refiner(["a cat"], [0])
    sampled = RefineOptions(seed=3, temperature=1.0)
    assert refiner(["a cat", "a dog"], options=sampled) == refiner(["a cat", "a dog"], [3, 3], sampled)


def test_a_wrong_option_is_named(refiner: Refiner) -> None:
    for call in (refiner.refine, prip.refine):
        with pytest.raises(InputError, match="^unknown option 'style'; did you mean styles\\?$"):
            call("a cat", style="ink")


def test_repr_says_what_is_loaded(refiner: Refiner) -> None:
    assert re.fullmatch(r"Refiner\('prip', [\d.]+M parameters, cpu, torch.float32, token_limit=75\)", repr(refiner))


def test_global_random_state_is_untouched(refiner: Refiner) -> None:
    before = torch.random.get_rng_state()
    refiner.refine("a cat", temperature=1.0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_alternatives(refiner: Refiner) -> None:
    lists = refiner.refine(["a cat", "a dog on the beach"], num_alternatives=4, seed=1, max_new_tokens=15)
    assert [len(set(texts)) for texts in lists] == [4, 4]
    assert lists[0][0] == refiner.refine("a cat", max_new_tokens=15)
    assert lists[0] == refiner.refine("a cat", num_alternatives=4, seed=1, max_new_tokens=15)
    assert lists[0][:2] == refiner.refine("a cat", num_alternatives=2, seed=1, max_new_tokens=15)
    assert all(text.startswith("a cat, ") for text in lists[0])


def test_alternatives_stay_distinct_when_almost_greedy(refiner: Refiner) -> None:
    texts = refiner.refine("a cat", num_alternatives=3, temperature=1e-4, max_new_tokens=6)
    assert len(set(texts)) == 3


def test_a_full_prompt_returns_unchanged_with_a_warning(refiner: Refiner) -> None:
    with pytest.warns(PripWarning, match="1 prompt was returned unchanged: .* limit of 75 tokens .*: 'a very long"):
        assert refiner.refine(LONG) == LONG
    with pytest.warns(PripWarning):
        assert refiner.refine(LONG, num_alternatives=3) == [LONG]
    with pytest.warns(PripWarning):
        texts = refiner.refine([LONG, "a cat"])
    assert texts[0] == LONG
    assert texts[1] == refiner.refine("a cat")


@pytest.mark.parametrize("free", [3, 4, 5])
def test_four_free_tokens_are_enough(refiner: Refiner, free: int) -> None:
    budget = count_clip_tokens("a cat on a mat") + free
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = refiner.refine("a cat on a mat", token_budget=budget)
    assert (text != "a cat on a mat") is (free >= 4)
    assert bool(caught) is (free < 4)
    assert count_clip_tokens(text) <= budget


def test_longer_than_the_decoder_reads(refiner: Refiner) -> None:
    with pytest.warns(PripWarning):
        assert refiner.refine(LONG, token_budget=5000) == LONG


def test_max_new_tokens(refiner: Refiner) -> None:
    text = refiner.refine("a cat", max_new_tokens=5)
    added = refiner.processor.decoder_tokenizer.encode(text.removeprefix("a cat,"), add_special_tokens=False)
    assert 1 <= len(added) <= 5


def test_banned_terms(refiner: Refiner) -> None:
    plain = refiner.refine("a cat")
    banned = plain.removeprefix("a cat, ").split()[0].strip(",")
    text = refiner.refine("a cat", banned_terms=[banned.upper()])
    assert banned.lower() not in text.lower().removeprefix("a cat,")
    assert text != plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": 5}, "prompt: expected a string or a list of strings, got an object of type int"),
        ({"prompt": None}, "got None"),
        ({"prompt": b"a cat"}, "got an object of type bytes"),
        ({"prompt": ["a cat", " "]}, r"prompt\[1\]: expected at least one word, got only blanks"),
        ({"prompt": ["a cat", 3]}, r"prompt\[1\]: expected a string, got an object of type int"),
        ({"num_alternatives": 0}, "num_alternatives: expected a whole number of at least 1, got 0"),
        ({"seed": 1.5}, "seed: expected a whole number, got 1.5"),
        ({"temperature": -1}, "temperature: expected a number of at least 0, got -1"),
        ({"temperature": float("nan")}, "temperature: expected a number of at least 0, got nan"),
        ({"temperature": "hot"}, "temperature: expected a number"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"token_budget": True}, "token_budget"),
        ({"banned_terms": "hour"}, "banned_terms: expected a list of strings, got 'hour'"),
        ({"banned_terms": [""]}, "banned_terms"),
        ({"batch_size": 0}, "batch_size"),
        ({"styles": "ink"}, "styles: expected a list of strings, got 'ink'"),
        ({"styles": 3}, "styles: expected a list of strings, got 3"),
        ({"styles": ["ink", " "]}, r"styles\[1\]: expected at least one word, got only blanks"),
        ({"styles": [None]}, r"styles\[0\]: expected a string, got None"),
        ({"styles": ["a\0b"]}, r"styles\[0\]: expected no control characters, got U\+0000 at character 2"),
        ({"keep_attributes": 1}, "keep_attributes: expected True or False, got 1"),
        ({"no_artists": "yes"}, "no_artists: expected True or False, got 'yes'"),
        ({"strength": "half"}, "strength: expected a number from 0 to 1, got 'half'"),
        ({"strength": True}, "strength: expected a number from 0 to 1, got True"),
        ({"strength": 1.5}, "strength: expected a number from 0 to 1, got 1.5"),
        ({"strength": float("nan")}, "strength: expected a number from 0 to 1, got nan"),
        ({"strength": 0, "prompt": " "}, "prompt: expected at least one word, got only blanks"),
    ],
)
def test_bad_input(refiner: Refiner, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refiner.refine(**{"prompt": "a cat", **arguments})


def test_bad_device(tiny_checkpoint) -> None:
    with pytest.raises(InputError, match="device: expected one of cpu.*, got 'toaster'"):
        Refiner.from_pretrained(tiny_checkpoint, device="toaster")


def test_all_ways_to_refine_have_the_same_options() -> None:
    options = {field.name: field.default for field in fields(RefineOptions)}
    for function, before in (
        (Refiner.refine, ["self", "prompt", "options"]),
        (prip.refine, ["prompt", "model", "device", "revision", "dtype", "quantization", "compile", "options"]),
    ):
        parameters = inspect.signature(function).parameters
        assert [*parameters] == [*before, *options]
        assert {name: parameters[name].default for name in options} == options
    loading = inspect.signature(Refiner.from_pretrained).parameters
    assert {*loading} == {"model", "device", "revision", "dtype", "quantization", "compile"}


def test_options_reach_the_refiner(tiny_checkpoint, refiner: Refiner) -> None:
    options = dict(num_alternatives=2, seed=3, temperature=0.9, max_new_tokens=9, token_budget=30, batch_size=1)
    options |= dict(banned_terms=["golden"], styles=["ink"], keep_attributes=False, no_artists=True, strength=0.5)
    options |= dict(top_p=0.8, allow_faults=True)
    assert prip.refine("a cat", tiny_checkpoint, device="cpu", **options) == refiner.refine("a cat", **options)
    for name, value in (*options.items(), ("batch_size", 7)):
        seen = pytest.MonkeyPatch()
        with seen.context() as patch:
            patch.setattr(Refiner, "refine", lambda self, prompt, given, seed: given)
            given = prip.refine("a cat", tiny_checkpoint, device="cpu", **{name: value})
        assert given == replace(RefineOptions(), **{name: value})
        assert refiner.refine("a cat", given, num_alternatives=1, max_new_tokens=4) == refiner.refine(
            "a cat", **{name: value} | {"num_alternatives": 1, "max_new_tokens": 4}
        )


def test_warnings_show_the_users_own_line(tiny_checkpoint, refiner: Refiner) -> None:
    source = "call(LONG)\n"
    calls = {
        "method": refiner.refine,
        "alternatives": lambda text: refiner.refine(text, num_alternatives=2),
        "protocol": lambda text: refiner([text], [0]),
        "function": lambda text: prip.refine(text, model=tiny_checkpoint, device="cpu"),
    }
    for name, call in calls.items():
        outside = __file__ if call.__name__ == "<lambda>" else f"{name}.py"
        with pytest.warns(PripWarning) as caught:
            exec(compile(source, f"{name}.py", "exec"), {"__name__": "__main__", "call": call, "LONG": LONG})
        assert [one.filename for one in caught] == [outside]


def test_is_a_prompt_refiner(refiner: Refiner) -> None:
    assert isinstance(refiner, PromptRefiner)
    assert refiner(["a cat", "a dog"], [1, 2]) == refiner.refine(["a cat", "a dog"])
    with pytest.raises(InputError, match="seeds: expected one for each of the 2 user prompts, got 1"):
        refiner(["a cat", "a dog"], [1])


def test_refine_keeps_what_it_has_loaded(tiny_checkpoint, refiner: Refiner, monkeypatch) -> None:
    assert prip.refine("a cat", model=tiny_checkpoint, device="cpu") == refiner.refine("a cat")
    monkeypatch.setattr(Refiner, "from_pretrained", lambda *a, **k: pytest.fail("loaded twice"))
    assert prip.refine(["a dog"], model=str(tiny_checkpoint), device="cpu", seed=3) == refiner.refine(["a dog"])


def test_a_whole_checkpoint_is_as_good_as_its_refiner(tiny_checkpoint, refiner: Refiner, tmp_path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "whole" / "refiner")
    assert Refiner.from_pretrained(tmp_path / "whole", device="cpu").refine(PROMPTS) == refiner.refine(PROMPTS)
    with pytest.raises(InputError, match="revision: expected None"):
        Refiner.from_pretrained(tmp_path / "whole", revision="v9")
    with pytest.raises(InputError, match="revision: expected None"):
        prip.refine("a cat", revision="v9")


def test_a_folder_that_was_trained_anew_is_loaded_anew(tiny_checkpoint, tmp_path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tiny_checkpoint, folder)
    before = prip.refine(PROMPTS, model=folder, device="cpu")
    decoder = PromptDecoder.from_pretrained(folder / "decoder")
    torch.manual_seed(1)
    torch.nn.init.normal_(decoder.lm.get_output_embeddings().weight)
    decoder.save_pretrained(folder / "decoder")
    assert prip.refine(PROMPTS, model=folder, device="cpu") != before


def test_only_a_checkpoints_own_folder_is_looked_through(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prip-mini" / "encoder").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "prip-mini" / "encoder"):
        (folder / "another.safetensors").touch()
    for nothing in (None, "", " ", ".", "prip-mini", "owner/name", "no such folder"):
        assert last_change(nothing) == 0, nothing
    shutil.copytree(tiny_checkpoint, tmp_path / "whole" / "refiner")
    written = max(file.stat().st_mtime_ns for file in (tmp_path / "whole").rglob("*.safetensors"))
    assert last_change("whole") == last_change(tmp_path / "whole" / "refiner") == written
    monkeypatch.setenv("HOME", str(tmp_path))
    assert last_change("~/whole") == written


def test_it_is_moved_with_all_that_share_its_models(tiny_checkpoint) -> None:
    class Words:
        token_limit = 20

        def count_tokens(self, text: str) -> int:
            return len(text.split())

    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    view = refiner.counted_by(Words())
    assert refiner.device == view.device == torch.device("cpu")
    assert view.to("cpu", "bfloat16") is view and refiner.model.dtype == torch.bfloat16
    assert refiner.refine("a cat").startswith("a cat")
    assert refiner.to("meta").device.type == view.device.type == "meta" and refiner.model.dtype == torch.bfloat16
    with pytest.raises(InputError, match="device: expected one of .*, got 'tpu'"):
        refiner.to("tpu")


def test_copies_and_pickles_refine_alike(tiny_checkpoint) -> None:
    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    for other in (pickle.loads(pickle.dumps(refiner)), copy.deepcopy(refiner)):
        assert other.model is not refiner.model and other.record == refiner.record
        assert other.refine(USER_PROMPTS) == refiner.refine(USER_PROMPTS)
    assert copy.copy(refiner).model is refiner.model


def test_what_leaves_no_room_is_named(refiner: Refiner) -> None:
    with pytest.warns(PripWarning, match="the generator's limit of 75 tokens and max_new_tokens=30"):
        assert refiner.refine(LONG, max_new_tokens=30) == LONG


@pytest.mark.gpu
def test_a_gpu_refines_as_the_cpu_does(refiner: Refiner, tiny_checkpoint) -> None:
    on_gpu = Refiner.from_pretrained(tiny_checkpoint, device="cuda")
    assert on_gpu.refine(PROMPTS) == refiner.refine(PROMPTS), "greedy"
    sampled = [one.refine(PROMPTS, temperature=1.0, seed=3) for one in (on_gpu, refiner)]
    assert sampled[0] == sampled[1], "random numbers are drawn on the CPU"
    assert on_gpu.device.type == "cuda" and on_gpu.to("cpu").device.type == "cpu"
    assert on_gpu.refine(PROMPTS) == on_gpu.to("cuda").refine(PROMPTS) == refiner.refine(PROMPTS)


def test_more_tokens_than_the_decoder_has_positions_for_are_as_many_as_it_has(refiner: Refiner) -> None:
    limit = refiner.model.decoder.lm.config.max_position_embeddings
    many = refiner.refine("a cat", max_new_tokens=10 * limit, token_budget=20 * limit)
    assert many.startswith("a cat, ")
    ids = refiner.processor.prefix_ids("a cat")
    head = refiner.model.decoder.config.pivot_length + len(ids)
    assert many == refiner.refine("a cat", max_new_tokens=limit - head, token_budget=20 * limit)
    crowded = "cat " * (limit - head)
    with pytest.warns(PripWarning, match="returned unchanged"):
        assert refiner.refine(crowded, token_budget=20 * limit) == crowded


@pytest.mark.parametrize("wanted", [1, 3])
def test_each_prompt_may_have_a_seed_of_its_own(refiner: Refiner, wanted: int) -> None:
    options = RefineOptions(wanted, temperature=1.0, max_new_tokens=12)
    prompts, seeds = ["a cat", "a dog", "a cat", LONG], [1, 2, 3, 4]
    results = refiner.refine_each(prompts, seeds, options)
    for prompt, seed, result in zip(prompts[:3], seeds, results, strict=False):
        alone = refiner.refine(prompt, **{**vars(options), "seed": seed})
        assert result.texts == ([alone] if wanted == 1 else alone) and not result.unchanged and not result.short
    assert results[0].texts[-1] != results[2].texts[-1]
    assert (results[3].texts, results[3].unchanged) == ([LONG], True)
    with pytest.warns(PripWarning) as told:
        refiner.refine(prompts, **vars(options))
    assert refiner.shortcomings(prompts, results, options) == [str(told[0].message)]
    with pytest.raises(InputError, match="seeds: expected one for each of the 4 user prompts, got 3"):
        refiner.refine_each(prompts, seeds[:3], options)
