"""What an evaluation's config and command line may say, and what is told of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from prip.errors import InputError
from prip.inference.evaluation.command_line import prompts_entry, refiner_entry
from prip.inference.evaluation.kinds.registry import (
    EMBEDDERS,
    GENERATORS,
    PROMPT_SETS,
    REFINERS,
    SCORERS,
    Context,
    make,
)
from prip.inference.evaluation.settings import EvaluationSettings, read_settings
from prip.miniature.prompts import split_of
from prip.miniature.scene import parse
from prip.miniature.vocabulary import PLACES, SUBJECTS

SMALL = {"generators": {"renderer": {"kind": "renderer"}}, "scorers": {"truth": {"kind": "truth"}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("images_per_prompt: 0", "images_per_prompt: expected a whole number of at least 1, got 0"),
        ("bootstrap_draws: true", "bootstrap_draws: expected a whole number of at least 100, got True"),
        ("phrasings: 3", "unknown fields: phrasings"),
        ("[1, 2]", "must hold a mapping, it holds a list"),
        ("a: b: c", "cannot be read as YAML"),
        ("extends: miniature\nrefiners: {x: {kind: oracle}}", "refiner 'x': wanted a kind among none, .*got 'oracle'"),
        ("extends: miniature\nrefiners: {x: {kind: suffix}}", "refiner 'x': suffix wants text"),
        ("extends: miniature\nrefiners: {x: {kind: none, y: 1}}", "none has no option y; its options: none"),
        ("extends: miniature\nrefiners: {a/b: {kind: none}}", "wanted names without slashes"),
        ("extends: miniature\nscorers: {x: {kind: truth, role: god}}", "role must be one of trained against"),
        ("extends: miniature\ngenerators: {x: {kind: renderer, seen: 1}}", "seen must be true or false, it is 1"),
        ("extends: miniature\ncomparisons: [none]", "comparisons must be pairs of refiners, 'none' came"),
        ("extends: miniature\ncomparisons: null", "comparisons must be pairs of refiners, None came"),
        ("extends: miniature\ncomparisons: [[none, lr]]", "comparisons must be of none, random, .*; lr came"),
        ("extends: miniature\ncomparisons: [[none@lamp, rl@renderer]]", "on diffusion, renderer; lamp came"),
        (
            "extends: miniature\ncomparisons: [[none, rl@renderer]]",
            "both sides or of none, .'none', 'rl@r.* came",
        ),
        ("extends: miniature\ngenerators: {x: renderer}", "wanted a kind and its options for 'x', got 'renderer'"),
        ("refiners: {}", "generators and scorers: wanted at least one of each"),
        ("extends: nowhere", r"config 'nowhere' is neither a preset \(.*miniature.*\) nor a file"),
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
    with pytest.raises(InputError, match="scorers must be of truth, .*; taste came"):
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
    with pytest.raises(InputError, match="refiner 'nobody': wanted one of .*promptist"):
        refiner_entry("nobody")
    with pytest.raises(InputError, match="wanted KIND or KIND:PLACE with a kind among none"):
        refiner_entry("x=oracle:y")
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n")
    assert prompts_entry(str(file)) == {"kind": "file", "place": str(file)}
    assert prompts_entry("miniature") == {"kind": "miniature"}
    with pytest.raises(InputError, match="prompts: wanted KIND"):
        prompts_entry(str(tmp_path / "none.txt"))


@pytest.mark.parametrize("kinds", [PROMPT_SETS, REFINERS, GENERATORS, SCORERS, EMBEDDERS])
def test_every_kind_says_what_it_is(kinds: dict[str, str]) -> None:
    from prip.inference.evaluation.kinds.registry import _function

    for kind, place in kinds.items():
        assert (_function(place).__doc__ or "").startswith(f"The kind `{kind}`"), place


@pytest.mark.parametrize("split", ["test", "dev"])
def test_the_miniatures_prompts_are_of_the_split(split: str) -> None:
    context = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
    prompts = make("prompts", "prompts", {"kind": "miniature", "split": split}, PROMPT_SETS, context)
    assert {prompt.cluster for prompt in prompts} == {subject.name for subject in SUBJECTS}
    for prompt in prompts:
        asked = parse(prompt.text)
        assert split_of(SUBJECTS[asked["subject"]], PLACES[asked["place"]]) == split
        assert prompt.unit == f"{prompt.cluster}/{asked['place']}"
    few = make("prompts", "prompts", {"kind": "miniature", "split": split, "subjects": 5}, PROMPT_SETS, context)
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
