"""What an evaluation's config and command line may say, and what is told of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from prip.errors import InputError
from prip.inference.evaluation.kinds.registry import (
    EMBEDDERS,
    GENERATORS,
    PROMPT_SETS,
    REFINERS,
    SCORERS,
    Context,
    Kinds,
)
from prip.inference.evaluation.settings import EvaluationSettings, prompts_entry, read_settings, refiner_entry
from prip.miniature.prompts import split_of
from prip.miniature.scene import parse
from prip.miniature.vocabulary import PLACES, SUBJECTS

SMALL = {"generators": {"renderer": {"kind": "renderer"}}, "scorers": {"truth": {"kind": "truth"}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("images_per_prompt: 0", "images_per_prompt.* a whole number of at least 1,.* 0"),
        ("bootstrap_draws: true", "bootstrap_draws: expected an integer, got True"),
        ("promts: {kind: file}", "unknown option 'promts'; expected prompts, .*; did you mean prompts?"),
        ("[1, 2]", "config: expected a mapping of settings in .*, got list"),
        ("a: b: c", "is not valid YAML"),
        ("extends: miniature\nrefiners: {x: {kind: oracle}}", "refiner 'x': kind: expected none, .*got 'oracle'"),
        ("extends: miniature\nrefiners: {x: {kind: suffix}}", "refiner 'x': text: expected a string, got none"),
        (
            "extends: miniature\nrefiners: {x: {kind: none, y: 1}}",
            "refiner 'x': none: unknown option 'y'; expected none",
        ),
        ("extends: miniature\nrefiners: {a/b: {kind: none}}", "expected names without slashes"),
        (
            "extends: miniature\nscorers: {x: {kind: truth, role: god}}",
            "role: expected trained against, held out or fidelity, got 'god'",
        ),
        ("extends: miniature\ngenerators: {x: {kind: renderer, seen: 1}}", "seen: expected true or false, got 1"),
        ("extends: miniature\ncomparisons: [none]", "comparisons: expected a list, got .'none'"),
        ("extends: miniature\ncomparisons: null", "comparisons: expected a list, got None"),
        ("extends: miniature\ncomparisons: [[none, lr]]", "comparisons: expected none, random, .*, got 'lr'"),
        (
            "extends: miniature\ncomparisons: [[none@lamp, rl@renderer]]",
            "comparisons: expected diffusion or renderer, got 'lamp'",
        ),
        (
            "extends: miniature\ncomparisons: [[none, rl@renderer]]",
            "on both sides or on neither, got .'none', 'rl@r",
        ),
        (
            "extends: miniature\ngenerators: {x: renderer}",
            "generator 'x': expected a kind and its options, got 'renderer'",
        ),
        ("scorers: {truth: {kind: truth}}", "generators and scorers: expected at least one of each, or none"),
        ("extends: nowhere", r"config: expected a preset \(.*miniature.*\) or a YAML file, got 'nowhere'"),
    ],
)
def test_a_config_that_does_not_hold_is_refused_in_its_own_words(tmp_path: Path, content: str, message: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(content)
    with pytest.raises(InputError, match=message):
        read_settings(str(own))


def test_a_config_extends_another_and_adds_to_its_names(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text('extends: miniature\nimages_per_prompt: 3\nrefiners: {house: {kind: suffix, text: "golden hour"}}\n')
    settings, base = read_settings(str(own)), read_settings("miniature")
    assert list(settings.refiners) == [*base.refiners, "house"] and settings.images_per_prompt == 3
    assert (
        settings.generators == base.generators and read_settings(str(own), images_per_prompt=5).images_per_prompt == 5
    )
    own.write_text(f"extends: {own}\n")
    with pytest.raises(InputError, match="extends itself"):
        read_settings(str(own))


def test_names_are_chosen_and_none_stays() -> None:
    chosen = read_settings("miniature").selected(refiners=["rl"], generators=["renderer"])
    assert list(chosen.refiners) == ["none", "rl"] and list(chosen.generators) == ["renderer"]
    with pytest.raises(InputError, match="scorers: expected truth, .*, got 'taste'"):
        read_settings("miniature").selected(scorers=["taste"])
    assert list(EvaluationSettings(**SMALL).refiners) == ["none"]
    across = read_settings("composition")
    assert ["rl@diffusion", "rl@tuned"] in across.selected(refiners=["rl"]).comparisons
    assert across.selected(generators=["tuned"]).comparisons == [["none", "rl"]]


def test_entries_of_the_command_line(tmp_path: Path) -> None:
    assert refiner_entry("mine=prip:my/checkpoint") == ("mine", {"kind": "prip", "place": "my/checkpoint"})
    assert refiner_entry("house=suffix:a, b") == ("house", {"kind": "suffix", "text": "a, b"})
    assert refiner_entry("plain=none") == ("plain", {"kind": "none"})
    name, preset = refiner_entry("promptist")
    assert name == "promptist" and preset["kind"] == "causal-lm"
    with pytest.raises(InputError, match="refiner: expected .*promptist.*, got 'nobody'"):
        refiner_entry("nobody")
    with pytest.raises(InputError, match="expected KIND or KIND:PLACE with one of the kinds none"):
        refiner_entry("x=oracle:y")
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n")
    assert prompts_entry(str(file)) == {"kind": "file", "place": str(file)}
    assert prompts_entry("miniature") == {"kind": "miniature"}
    with pytest.raises(InputError, match="prompts: expected KIND"):
        prompts_entry(str(tmp_path / "none.txt"))


@pytest.mark.parametrize("kinds", [PROMPT_SETS, REFINERS, GENERATORS, SCORERS, EMBEDDERS])
def test_every_kind_says_what_it_is(kinds: Kinds) -> None:
    for kind in kinds:
        assert (kinds.function(kind).__doc__ or "").startswith(f"The kind `{kind}`"), kind


@pytest.mark.parametrize("split", ["test", "dev"])
def test_the_miniatures_prompts_are_of_the_split(split: str) -> None:
    context = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
    prompts = PROMPT_SETS.make("prompts", {"kind": "miniature", "split": split}, context)
    assert {prompt.cluster for prompt in prompts} == {subject.name for subject in SUBJECTS}
    for prompt in prompts:
        asked = parse(prompt.text)
        assert split_of(SUBJECTS[asked["subject"]], PLACES[asked["place"]]) == split
        assert prompt.unit == f"{prompt.cluster}/{asked['place']}"
    few = PROMPT_SETS.make("prompts", {"kind": "miniature", "split": split, "subjects": 5}, context)
    assert len({prompt.cluster for prompt in few}) == 5 and set(few) <= set(prompts)


def test_every_preset_can_be_read() -> None:
    import prip.inference

    folder = Path(prip.inference.__path__[0]) / "configs"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    assert {"miniature", "smoke", "hpsv2", "compositional"} <= set(names)
    for name in names:
        settings = read_settings(name)
        assert "none" in settings.refiners
    for path in (folder / "refiners").glob("*.yaml"):
        EvaluationSettings(refiners=dict([refiner_entry(path.stem)]), **SMALL)
