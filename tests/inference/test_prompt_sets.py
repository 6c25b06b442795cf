"""Prompt sets: the published formats in small made files, and the real ones where they lie on this machine."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from prip.errors import CheckpointError, InputError, PripWarning
from prip.inference.evaluation.kinds.registry import PROMPT_SETS, Context
from prip.inference.evaluation.settings import prompts_entry

CONTEXT = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
STYLES = ("anime", "concept-art", "paintings", "photo")


def read(entry: dict) -> list[tuple[str, str]]:
    prompts = PROMPT_SETS.make("prompts", entry, CONTEXT)
    assert all(one.unit == one.cluster == one.text for one in prompts)
    return [(one.text, one.category) for one in prompts]


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def hpsv2(folder: Path, inside: str = "benchmark/") -> Path:
    for style in STYLES:
        written(folder, f"{inside}{style}.json", json.dumps([f"a cat, {style}", f"a dog, {style}", "one for all"]))
    return folder


@pytest.mark.parametrize("inside", ["", "benchmark/"])
def test_hpsv2_has_four_styles(tmp_path: Path, inside: str) -> None:
    rows = read({"kind": "hpsv2", "place": str(hpsv2(tmp_path, inside))})
    assert [row for row in rows if row[0] != "one for all"] == [
        (f"a {subject}, {style}", style) for style in STYLES for subject in ("cat", "dog")
    ]
    assert rows.count(("one for all", "anime")) == 1 and len(rows) == 9
    assert {category for _, category in read({"kind": "hpsv2", "place": str(tmp_path), "styles": ["photo"]})} == {
        "photo"
    }


def test_parti_prompts_have_categories_and_quotation_marks(tmp_path: Path) -> None:
    content = 'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t\n"G I G G L E" painted\tArts\tWriting\tx\n'
    place = written(tmp_path, "PartiPrompts.tsv", content)
    expected = [("bond", "Abstract"), ('"G I G G L E" painted', "Arts")]
    assert read({"kind": "parti-prompts", "place": place}) == expected
    assert read({"kind": "parti-prompts", "place": str(tmp_path)}) == expected
    by_challenge = read({"kind": "parti-prompts", "place": place, "category": "Challenge"})
    assert [category for _, category in by_challenge] == ["Basic", "Writing"]


def test_geneval_has_tags(tmp_path: Path) -> None:
    rows = [
        {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
        {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "a photo of two clocks"},
    ]
    place = written(tmp_path, "evaluation_metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    expected = [("a photo of a bench", "single_object"), ("a photo of two clocks", "counting")]
    assert read({"kind": "geneval", "place": place}) == read({"kind": "geneval", "place": str(tmp_path)}) == expected


def test_drawbench_is_a_table(tmp_path: Path) -> None:
    content = '\ufeffPrompts,Category\r\nA red cat.,Colors\r\n"A dog, a cat and ""a sign""",Text\r\n'
    place = written(tmp_path, "drawbench.csv", content)
    expected = [("A red cat.", "Colors"), ('A dog, a cat and "a sign"', "Text")]
    assert read({"kind": "drawbench", "place": place}) == expected


def test_files_of_ones_own(tmp_path: Path) -> None:
    lines = written(tmp_path, "prompts.txt", "a cat\r\n  a dog \na cat\nеще кот 🐈")
    assert prompts_entry(lines) == {"kind": "file", "place": lines}
    assert read(prompts_entry(lines)) == [("a cat", ""), ("a dog", ""), ("еще кот 🐈", "")]
    table = written(tmp_path, "prompts.CSV", 'text,style\n"a cat\nand a dog",photo\na cow,anime\n')
    entry = {"kind": "file", "place": table, "column": "text", "category_column": "style"}
    assert read(entry) == [("a cat and a dog", "photo"), ("a cow", "anime")]


def test_what_cannot_be_refined_is_left_out_and_told(tmp_path: Path) -> None:
    place = written(tmp_path, "prompts.txt", "a cat\n\n  \n...\nbell \x07\na dog\n")
    with pytest.warns(PripWarning) as caught:
        assert [text for text, _ in read({"kind": "file", "place": place})] == ["a cat", "a dog"]
    told = "\n".join(str(one.message) for one in caught)
    assert "2 left out: expected at least one word, got an empty string (line 2, 3)" in told
    assert "1 left out: expected at least one word, got '...' (line 4)" in told
    assert "expected no control characters, got U+0007 at character 6 (line 5)" in told
    table = written(tmp_path, "long.csv", "prompt\n" + "a cat\n\n" * 2 + '""\n' * 12)
    with pytest.warns(PripWarning, match=r"12 left out: .* \(line 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ...\)"):
        read({"kind": "file", "place": table})


BAD_FILES = {
    "not UTF-8": ("x.txt", b"a cat\na d\xffg\n", {}, "x.txt, line 2: expected UTF-8, got byte 0xff"),
    "nothing in it": ("x.txt", "\n\n", {}, "x.txt: expected at least one prompt, got none"),
    "empty table": ("x.csv", "", {}, "x.csv: expected the names of the columns, prompt among them, in the first line"),
    "no such column": (
        "x.csv",
        "text,style\na,b\n",
        {},
        "line 1: expected one column 'prompt', got none; .*: text, style",
    ),
    "twice the column": ("x.csv", "prompt,prompt\na,b\n", {}, "line 1: expected one column 'prompt', got 2"),
    "no such category": ("x.tsv", "prompt\na\n", {"category_column": "style"}, "line 1: expected one column 'style'"),
    "too many fields": ("x.csv", 'prompt,style\n"a\nb",c\na, cat,c\n', {}, r"line 4: expected 2 columns .*, got 3"),
    "too many lines": ("x.csv", 'prompt,style\nb,c\n"a\nb",c,d\n', {}, r"line 3: expected 2 columns .*, got 3"),
    "too few fields": ("x.tsv", "prompt\tstyle\na\n", {}, r"line 2: expected 2 columns \(prompt, style\), got 1"),
    "quote left open": ("x.csv", 'prompt\na\n"b\nc\n', {}, "line 3: unexpected end of data"),
    "column of text": ("x.txt", "a\n", {"category_column": "style"}, "category_column: expected none for a text file"),
    "other ending": ("x.json", "[]", {}, "place: expected a .csv or .tsv file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_told_with_line_and_column(tmp_path: Path, case: str) -> None:
    name, content, options, message = BAD_FILES[case]
    place = written(tmp_path, name, content)
    with warnings.catch_warnings(), pytest.raises(InputError, match=message):
        warnings.simplefilter("ignore", PripWarning)
        read({"kind": "file", "place": place, **options})


def test_bad_benchmarks_are_told(tmp_path: Path) -> None:
    for content, message in (
        ("[1]", "anime.json, item 1: expected a text, got 1"),
        ("{}", "anime.json: expected a list of texts, got a dict"),
        ('["a",\n "b]', "anime.json cannot be read as JSON: line 2, column 2: Unterminated string"),
    ):
        written(tmp_path, "anime.json", content)
        with pytest.raises(InputError, match=message):
            read({"kind": "hpsv2", "place": str(tmp_path), "styles": ["anime"]})
    with pytest.raises(InputError, match="photo.json cannot be read: No such file"):
        read({"kind": "hpsv2", "place": str(tmp_path), "styles": ["photo"]})
    with pytest.raises(InputError, match="styles: expected"):
        read({"kind": "hpsv2", "place": str(tmp_path), "styles": ["cubism"]})
    place = written(tmp_path, "evaluation_metadata.jsonl", '{"tag": "a", "prompt": "b"}\n{"tag": "a"}\n')
    with pytest.raises(InputError, match="line 2: expected an object with a text 'prompt'"):
        read({"kind": "geneval", "place": place})
    written(tmp_path, "evaluation_metadata.jsonl", '{"tag": "a", "prompt": "b"}\nnonsense\n')
    with pytest.raises(InputError, match="line 2 cannot be read as JSON: line 1, column 1: Expecting value"):
        read({"kind": "geneval", "place": place})
    with pytest.raises(InputError, match="expected a folder or the OWNER/NAME of a dataset .*, got 'no/such/folder'"):
        read({"kind": "hpsv2", "place": "no/such/folder"})


def test_benchmarks_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hub_server import serving, stand_in

    parti = {"PartiPrompts.tsv": b"Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t\n", "README.md": b""}
    with serving() as hub:
        stand_in(hub, tmp_path / "home", monkeypatch)
        commit = hub.add("zhwang/HPDv2", hpsv2(tmp_path / "hpd"))
        hub.add("nateraw/parti-prompts", tmp_path / "hpd")
        hub.repositories["nateraw/parti-prompts"].commit(parti)
        assert len(read({"kind": "hpsv2"})) == 9
        assert read({"kind": "parti-prompts"}) == [("bond", "Abstract")]
        hub.requests.clear()
        assert len(read({"kind": "hpsv2", "place": f"zhwang/HPDv2@{commit}"})) == 9 and not hub.requests
        assert len(read({"kind": "hpsv2", "styles": ["anime"]})) == 3
        assert hub.requests == [("GET", "/api/datasets/zhwang/HPDv2", None)]
        fetched = {path.name for path in (tmp_path / "home").rglob("snapshots/*/*")}
        assert fetched == {"benchmark", "PartiPrompts.tsv"}
        with pytest.raises(CheckpointError, match="dataset 'zhwang/other': the Hub shows no such repository"):
            read({"kind": "hpsv2", "place": "zhwang/other"})
        with pytest.raises(CheckpointError, match="dataset 'nateraw/parti-prompts': .* none of the expected files"):
            read({"kind": "hpsv2", "place": "nateraw/parti-prompts"})


def test_real_files(real_data: Callable[[str], Path]) -> None:
    parti = read({"kind": "parti-prompts", "place": str(real_data("PartiPrompts.tsv"))})
    assert len(parti) == 1632 and len({category for _, category in parti}) == 12
    assert sum(text.startswith('"') for text, _ in parti) == 1
    for name, most in (("diffusiondb_prompts.txt", 8297), ("imagereward_refl_prompts.txt", 9192)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PripWarning)
            rows = read({"kind": "file", "place": str(real_data(name))})
        assert most * 0.9 < len(rows) <= most and len(set(rows)) == len(rows)
