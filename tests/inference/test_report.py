"""The report as one page of HTML: what it says, what it shows, and that nothing from outside runs or loads."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DESKTOP, MISSING, PHONE, open_browser
from made_results import ABOUT, COMPARISONS, embeddings, make_results
from PIL import Image

from prip.inference.evaluation.analysis.results import read_results
from prip.inference.evaluation.analysis.summary import summarise
from prip.inference.evaluation.analysis.table import to_markdown
from prip.inference.evaluation.analysis.tables import tables
from prip.inference.evaluation.report import write_report
from prip.inference.evaluation.report.headline import headline
from prip.inference.evaluation.report.page import marked, report_page, signed
from prip.inference.evaluation.report.plots import before_and_after, curve, dots
from prip.inference.evaluation.work.images import ImageStore

CURVES = {"iteration": [0, 10, 20], "reward": [1.0, 2.0, 2.5], "kl": [0.0, 0.3, 0.5], "truth": [0.5, None, 0.6]}
VOID = {"meta", "img", "br", "path", "use"}


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, its text, and whether all that opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for own, attributes in self.tags if own == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation with its report."""
    folder = tmp_path_factory.mktemp("evaluation")
    path = make_results(folder, prompts=12, fails=lambda prompt, *_: prompt == 4)
    summary = summarise(path, ABOUT, embeddings(path), COMPARISONS, draws=200)
    write_report(folder, {**summary, "curves": CURVES}, folder / "images")
    return folder


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def paged(folder: Path, summary: dict[str, Any], limit: int = 120) -> str:
    path = folder / "results.parquet"
    return report_page(summary, read_results(path), path, ImageStore(folder / "images").path, limit)


def test_the_page_is_whole_and_needs_nothing_beside_it(folder: Path, page: Page) -> None:
    assert page.open == [] and page.tags[0][0] == "html"
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:image/|#)[^"]*', text)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text) and "@import" not in text and "url(http" not in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {str(attributes["href"])[1:] for attributes in page.all("a")}
    assert anchors <= set(ids) and {"scores", "tests", "curves", "failures"} <= anchors
    references = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'<use href="#([^"]+)"', text))
    assert references and references <= set(ids)


def test_it_begins_with_the_answer_and_its_price(page: Page, summary: dict[str, Any]) -> None:
    row = next(r for r in summary["rows"] if (r["refiner"], r["scorer"], r["category"]) == ("rl", "truth", "all"))
    assert (
        "rl makes better pictures than the plain prompt, according to truth, a judge that took no part in training"
        in page.text
    )
    assert f"{row['mean']:.3f} on diffusion." in page.text
    for shown in ("Gain in truth, renderer (never seen in training)", "Distance among a prompt's images", "after Holm"):
        assert shown in page.text
    assert len(page.all("h1")) == 1


def test_tables_have_heads_and_the_keyboard_reaches_them(page: Page) -> None:
    assert len(page.all("table")) >= 2 + 4 + 6
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    frames = [attributes for attributes in page.all("div") if "scroll" in str(attributes.get("class"))]
    assert len(frames) == len(page.all("table"))
    assert all(one["tabindex"] == "0" and one["role"] == "region" and one["aria-label"] for one in frames)


def test_images_are_those_of_the_evaluation_with_words_beside_them(folder: Path, page: Page) -> None:
    images, originals = page.all("img"), {path.stat().st_size: path for path in (folder / "images").rglob("*.png")}
    assert 0 < len(images) <= 120 and originals
    pixels = {Image.open(path).tobytes() for path in originals.values()} | {
        Image.open(path).tobytes() for path in (folder / "images").rglob("*.png")
    }
    for attributes in images:
        kind, _, data = str(attributes["src"]).partition(";base64,")
        assert kind == "data:image/png" and attributes["class"] == "tiny" and len(str(attributes["alt"])) > 10
        assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() in pixels
    assert f"{len(images)} of the evaluation's 288 images" in page.text


def test_plots_are_named_and_take_their_colours_from_the_page(folder: Path, page: Page) -> None:
    plots = page.all("svg")
    assert len(plots) == 3 + 2 + 1 + 4 and all(one["role"] == "img" and one["aria-label"] for one in plots)
    text = (folder / "report.html").read_text(encoding="utf-8")
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn)) <= {
        "none",
        *(f"var(--{name})" for name in ("ink", "soft", "line", "first", "second", "third", "good", "bad")),
    }
    style = re.search(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert style is not None and "prefers-color-scheme: dark" in style[1]


def test_failures_are_listed(page: Page) -> None:
    assert "24 of 288 images failed" in page.text and "RuntimeError: out of <memory>" in page.text


def test_what_comes_from_outside_is_shown_and_not_run(folder: Path, tmp_path: Path) -> None:
    import pandas as pd

    attack = '<script>alert("x")</script> & $footer $sections'
    frame = pd.read_parquet(folder / "results.parquet")
    hostile = frame["prompt_id"] < 12
    for column in ("user_prompt", "refined_prompt", "category", "error"):
        frame.loc[hostile & (frame[column] != ""), column] += f" {attack}"
    frame["refiner"] = frame["refiner"].replace({"chat": f"chat{attack}"})
    frame.to_parquet(tmp_path / "results.parquet", index=False)
    about = json.loads(json.dumps(ABOUT).replace('"chat":', f'"chat{json.dumps(attack)[1:-1]}":', 1))
    about["checkpoint"] = attack
    shutil.copytree(folder / "images", tmp_path / "images")
    found = summarise(tmp_path / "results.parquet", about, {}, draws=100)
    text = paged(tmp_path, found)
    page = Page(text)
    assert page.open == [] and not page.all("script")
    assert "<script" not in text and text.count("&lt;script&gt;") > 30
    assert page.text.count("images are on this page of") == 1


def people_say(win: float, loss: float, *, refiner: str = "rl", against: str = "none") -> dict[str, Any]:
    """Return people's answers about 30 clusters."""
    ends = {"margin_low": win - loss - 0.2, "margin_high": win - loss + 0.2, "clusters": 30, "p_exact": None}
    row = {"refiner": refiner, "against": against, "n": 60, "win": win, "tie": 1 - win - loss, "loss": loss}
    return {
        "annotators": 3,
        "answers": 90,
        "preference": [{**row, "low": 0.61, "high": 0.78, **ends}],
        "relevance": [{"refiner": "rl", "mean": 1.925, "low": None, "high": None, "n": 30}],
        "agreement": {"relevance": None, "preference": 0.5123},
    }


@pytest.mark.parametrize(
    ("people", "sentence", "tone", "warning"),
    [
        (people_say(0.7, 0.2), "People prefer rl's pictures to the pictures of the plain prompt", "good", ""),
        (
            people_say(0.1, 0.8),
            "People prefer the pictures of the plain prompt to rl's pictures",
            "bad",
            "People and truth contradict each other: people prefer the pictures of the plain prompt, truth prefers "
            "rl's pictures.",
        ),
        (
            people_say(0.4, 0.5),
            "People measurably prefer neither rl's pictures nor the pictures of the plain prompt",
            "",
            "People's answers do not confirm what truth says.",
        ),
        (people_say(0.8, 0.1, refiner="warmup", against="rl"), "People prefer warmup's pictures to rl's", "bad", ""),
    ],
)
def test_people_come_before_the_judges(
    folder: Path, summary: dict[str, Any], people: dict[str, Any], sentence: str, tone: str, warning: str, capsys
) -> None:
    asked = {**summary, "people": people}
    result = headline(asked)
    assert result.sentence.startswith(sentence) and ": of 60 answers, " in result.sentence
    assert result.facts[0].name == "Answers of people for rl, 60 in all" and result.facts[0].tone == tone
    assert result.judge.startswith("rl makes better pictures than the plain prompt, according to truth")
    assert [text for text in result.warnings if text.startswith("People")] == ([warning] if warning else [])
    text = Page(paged(folder, asked, 0)).text
    assert text.index(result.sentence) < text.index(result.judge) and (warning in text)
    assert tables(asked)[0].title == "Human preference"
    write_report(folder, asked, folder / "images")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == result.sentence and (not warning or f"warning: {warning}" in printed)


def test_people_who_rated_relevance_alone_come_first_too(summary: dict[str, Any]) -> None:
    result = headline({**summary, "people": {**people_say(0.7, 0.2), "preference": []}})
    assert result.sentence == "People find 1.93 of 2 points of the prompt in rl's pictures."
    assert result.judge.startswith("rl makes better pictures")


def test_few_prompts_are_warned_of(folder: Path, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    warning = "Few prompts: with 12 prompts (below 20), intervals are too narrow, and p-values are exact: never below "
    assert [text for text in headline(summary).warnings if text.startswith(warning)]
    assert warning in Page(paged(folder, summary, 0)).text
    write_report(folder, summary, folder / "images")
    assert f"warning: {warning}" in capsys.readouterr().out
    many = {**summary, "about": {**summary["about"], "clusters": 20}}
    assert headline(many).warnings == () and "Few prompts" not in paged(folder, many, 0)
    asked = people_say(0.9, 0.1)
    asked["preference"][0] |= {"clusters": 4, "p_exact": 2 / 2**4}
    result = headline({**many, "people": asked})
    assert result.sentence.startswith("People measurably prefer neither"), "four clusters cannot show anything"
    assert "Few prompts: people were asked about 4 (below 20)." in result.warnings
    assert "exact p = 0.12" in result.facts[0].detail


def test_a_gain_of_few_clusters_is_no_result_unless_the_exact_test_says_so(summary: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(summary))
    for row in changed["rows"]:
        if row["difference"] is not None:
            row |= {"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3, "p_exact": 2 / 2**5}
    assert headline(changed).sentence.startswith("rl makes pictures neither measurably better nor worse")


def test_no_change_of_fidelity_does_not_read_as_no_fidelity(summary: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(summary))
    for row in changed["rows"]:
        if row["difference"] is not None and row["scorer"] == "subject_accuracy":
            row |= {"difference": 0.0, "difference_low": -0.1, "difference_high": 0.1, "mean": 0.98}
    fact = next(fact for fact in headline(changed).facts if "fidelity" in fact.name)
    assert (fact.name, fact.figure) == ("Change of fidelity, subject_accuracy", "no change")
    assert re.fullmatch(r"-0.1\d* to \+0.1\d*; from 0.98\d* to 0.98\d*", fact.detail)


def test_what_people_say_is_shown_where_they_were_asked(folder: Path, page: Page, summary: dict[str, Any]) -> None:
    people = people_say(0.7, 0.2)
    shown = Page(paged(folder, {**summary, "people": people}, 0))
    text = shown.text
    assert "Human evaluation" in text and "Human evaluation" not in page.text
    assert all(words in text for words in ("70.0 %", "61.0 to 78.0 %", "0.512", "3 annotators gave 90 answers"))
    assert "#people" in {link.get("href") for link in shown.all("a")}
    assert "| rl | none | 70.0 % (61.0 to 78.0 %) | 10.0 % | 20.0 % | 60 |" in to_markdown(
        tables({**summary, "people": people})
    )


def test_the_number_of_images_is_a_setting(folder: Path, summary: dict[str, Any]) -> None:
    counts = [len(Page(paged(folder, summary, limit)).all("img")) for limit in (0, 40, 120)]
    assert counts[0] == 0 and 0 < counts[1] <= 40 < counts[2] <= 120
    assert 'id="before-and-after"' not in paged(folder, summary, 0)


def test_large_images_are_shrunk_and_missing_ones_told(folder: Path, summary: dict[str, Any], tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 255, (512, 640, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    path = folder / "results.parquet"
    text = report_page(summary, read_results(path), path, lambda _: tmp_path / "large.png", 40)
    sources = [str(attributes["src"]) for attributes in Page(text).all("img")]
    shown = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert sources[0].startswith("data:image/jpeg") and shown.size == (256, 205)
    missing = Page(report_page(summary, read_results(path), path, lambda name: tmp_path / name, 40))
    assert not missing.all("img") and missing.texts.count("missing") > 10
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes((tmp_path / "large.png").read_bytes()[:40])
    unreadable = Page(report_page(summary, read_results(path), path, lambda _: damaged, 40))
    assert not unreadable.all("img") and unreadable.texts.count("unreadable") > 10


def test_best_and_worst_are_those_with_most_and_least_gain(folder: Path, summary: dict[str, Any]) -> None:
    results = read_results(folder / "results.parquet")
    scores = {name: results.cells["diffusion", name].scores["truth"] for name in ("none", "rl")}
    gains = scores["rl"] - scores["none"]
    order = [place for place in np.argsort(gains) if not np.isnan(gains[place])]
    text = paged(folder, summary)
    best, worst = text[text.index("Gained most") :].split("Gained least")[:2]
    assert np.isnan(gains[4])
    for place in order[-3:]:
        assert results.prompts.texts[place] in best
    for place in order[:3]:
        assert results.prompts.texts[place] in worst[: worst.index("</section>")]


def test_what_a_refiner_added_is_marked() -> None:
    assert marked("a cat, golden hour", "a cat.") == "a cat<mark>, golden hour</mark>"
    assert marked("a cat", "a cat") == "a cat"
    assert marked("A grand cat at night", "a cat") == "A <mark>grand </mark>cat<mark> at night</mark>"
    assert marked("a <b> & more", "a <b>") == "a &lt;b&gt;<mark> &amp; more</mark>"


def test_minus_signs_and_hyphens() -> None:
    assert signed("-0.5 to -.1, mini-reward, x-2") == "\N{MINUS SIGN}0.5 to \N{MINUS SIGN}.1, mini-reward, x-2"


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.1, 0.2, "rl makes better pictures than the plain prompt, according to truth"),
        (-0.2, -0.1, "rl makes worse pictures than the plain prompt, according to truth"),
        (-0.1, 0.1, "rl makes pictures neither measurably better nor worse than the plain prompt, according to truth"),
    ],
)
def test_the_headline_claims_no_more_than_the_interval(
    summary: dict[str, Any], low: float, high: float, sentence: str
) -> None:
    changed = json.loads(json.dumps(summary))
    for row in changed["rows"]:
        if row["difference"] is not None:
            ends = {"difference_low": low, "difference_high": high}
            row |= {"difference": (low + high) / 2, **ends, "p_exact": 0.9 if low < 0 < high else 0.01}
    assert headline(changed).sentence.startswith(sentence)
    fidelity = next(fact for fact in headline(changed).facts if "fidelity" in fact.name)
    assert fidelity.tone == {True: "good", False: ""}[low > 0] or (fidelity.tone == "bad" and high < 0)


def test_the_gap_tile_claims_no_more_than_the_sentence(summary: dict[str, Any]) -> None:
    def shown(share: float, low: float | None, difference: float) -> list[tuple[str, str]]:
        changed = json.loads(json.dumps(summary))
        changed["gap_closed"] = {"diffusion": [share, low, low and 1.3]}
        for row in changed["rows"]:
            if row["difference"] is not None:
                row |= {"difference": difference, "difference_low": difference - 0.1, "difference_high": 1.0}
                row["p_exact"] = None
        return [(fact.figure, fact.detail) for fact in headline(changed).facts if fact.name.startswith("Gap")]

    assert shown(0.8, 0.6, 0.5) == [("80.0 %", "60 to 130 %")]
    assert shown(1.121, 0.9, 0.5) == [("100.0 %", "better than the searched best")]
    assert shown(1.121, None, 0.5) == [] and shown(1.121, 0.9, 0.05) == []


def test_a_report_of_nothing_but_the_plain_prompt(tmp_path: Path) -> None:
    import pandas as pd

    path = make_results(tmp_path, prompts=3, images=1)
    pd.read_parquet(path).query("refiner == 'none'").to_parquet(path, index=False)
    found = summarise(path, {**ABOUT, "refiners": {"none": {"kind": "none"}}}, {}, draws=100)
    text = paged(tmp_path, found)
    assert "No refiner was measured against the plain prompt." in text and Page(text).open == []


def test_plots_of_odd_data() -> None:
    nothing = np.full(3, np.nan)
    assert "gain 0" in before_and_after(nothing, nothing, ("a", "b"), "none at all")
    same = before_and_after(np.ones(3), np.ones(3), ("a", "b"), "all alike")
    assert "tie 3" in same and "gain 0" in same
    many = before_and_after(np.zeros(20_000), np.linspace(-1, 1, 20_000), ("a", "b"), "many")
    assert "gain 10,000" in many and len(many) < 400_000
    assert "$x^2$ &lt;b&gt;" in dots(["$x^2$ <b>"], {"g": [(1.0, 0.5, 1.5)]}, "gain", "A & B")
    assert "highest: 2" in curve([0, 1, 2], [1.0, None, 2.0], ("a", "b"), "gaps")


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_fits_a_phone_and_a_desktop(folder: Path, size: tuple[int, int]) -> None:
    with open_browser() as browser:
        browser.resize(*size, touch=size == PHONE)
        browser.open_page((folder / "report.html").resolve().as_uri())
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.run("return [...document.images].every((image) => image.naturalWidth > 0 && image.alt)")
        assert browser.console_errors() == []
