"""`prip annotate`: what is asked, what a browser learns of it, what is kept, and what the answers say together."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sqlite3
import sys
from pathlib import Path

import pyarrow
import pytest
from made_evaluation import SUBJECTS, make_evaluation
from PIL import Image
from pyarrow import parquet

from prip.errors import InputError
from prip.inference.annotation.answers import Answer, AnswerLog, read_answers, to_csv
from prip.inference.annotation.blinding import check_annotator, without_descriptions
from prip.inference.annotation.items import PREFERENCE, RELEVANCE, choose_refiners, draw_sample, image_path, read_rows
from prip.inference.annotation.server import make_application
from prip.inference.annotation.study import Study
from prip.inference.annotation.summary import (
    agreement,
    mean_with_interval,
    nominal_distance,
    ordinal_distance,
    people_summary,
    summarise,
)
from prip.inference.cli import main
from prip.inference.evaluation.analysis.people import people_tables
from prip.inference.evaluation.work.images import ImageStore
from prip.inference.network.request_guard import PAGE_HEADERS, Guard

REFINERS = ("none", "rl")
_names = itertools.count(1)


def request_name() -> str:
    return f"{next(_names):032x}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_evaluation(tmp_path / "evaluation")


def study_of(folder: Path, task: str = PREFERENCE, items: int = 100, seed: int = 0) -> Study:
    sample = draw_sample(
        folder / "images", read_rows(folder), task, refiners=REFINERS, generator=None, count=items, seed=seed
    )
    return Study(folder / "images", task, sample, seed, AnswerLog(folder))


def client_of(study: Study):
    from fastapi.testclient import TestClient

    return TestClient(make_application(study, "127.0.0.1", 8765), base_url="http://127.0.0.1:8765")


def answer_all(study: Study, annotator: str, answer: str) -> None:
    while current := study.state(annotator)["current"]:
        assert study.answer(annotator, current["item"], answer, 1.5, request_name())


def test_pairs_share_prompt_and_seed_and_every_annotator_has_an_order_of_their_own(folder: Path) -> None:
    study = study_of(folder)
    assert len(study.items) == 2 * len(SUBJECTS)
    first = [item.user_prompt for item in study.items[: len(SUBJECTS)]]
    assert len(set(first)) == len(SUBJECTS), "each prompt once before any comes twice"
    orders = {name: list(study.view(name).items.values()) for name in ("ann", "bob")}
    assert orders["ann"] != orders["bob"] and set(orders["ann"]) == set(orders["bob"])
    again = study_of(folder)
    assert list(again.view("ann").items.values()) == orders["ann"], "a restart changes nothing"
    sides = {study.view("ann").sides[name][0].refiner for name in study.view("ann").sides}
    assert sides == set(REFINERS), "both refiners come on both sides"


def test_identical_pairs_and_failed_images_are_left_out_and_counted(tmp_path: Path) -> None:
    failed = make_evaluation(tmp_path / "failed", failed=[("cat", "rl")], images_per_prompt=1)
    images = failed / "images"
    sample = draw_sample(images, read_rows(failed), PREFERENCE, refiners=REFINERS, generator=None, count=100, seed=0)
    assert len(sample.items) == len(SUBJECTS) - 1 and sample.failed == 1
    rows = read_rows(failed)
    same = [row._replace(image=rows[1].image) if row.user_prompt == rows[1].user_prompt else row for row in rows]
    assert draw_sample(images, same, PREFERENCE, refiners=REFINERS, generator=None, count=100, seed=0).identical == 1
    with pytest.raises(InputError, match="refiners: expected none or rl, got gpt"):
        choose_refiners(rows, PREFERENCE, ["none", "gpt"])
    with pytest.raises(InputError, match="items: expected at least 1, got 0"):
        draw_sample(images, rows, PREFERENCE, refiners=REFINERS, generator=None, count=0, seed=0)
    plain, refined = (row for row in rows if row.cluster == SUBJECTS[1])
    image_path(images, refined.image).write_bytes(image_path(images, plain.image).read_bytes())
    assert draw_sample(images, rows, PREFERENCE, refiners=REFINERS, generator=None, count=100, seed=0).identical == 1, (
        "other addresses, one image"
    )
    with pytest.raises(InputError, match="images: expected the image folder of prip evaluate"):
        draw_sample(tmp_path / "elsewhere", rows, RELEVANCE, refiners=REFINERS, generator=None, count=1, seed=0)
    with pytest.raises(InputError, match="image: expected a content address"):
        image_path(images, "../../etc/passwd")
    parquet.write_table(pyarrow.table({"user_prompt": ["a cat"]}), failed / "results.parquet")
    with pytest.raises(InputError, match="a table without cluster, refiner, generator, seed, image"):
        read_rows(failed)
    with pytest.raises(InputError, match="without results.parquet"):
        read_rows(tmp_path)


def test_where_there_is_no_evaluation_that_is_told_with_and_without_the_extra(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for more in ([], ["--summary"]):
        assert main(["annotate", str(tmp_path / "nowhere"), *more]) == 2
        assert "expected a finished prip evaluate, got " in capsys.readouterr().err
    (tmp_path / "results.parquet").touch()
    assert main(["annotate", str(tmp_path)]) == 2
    assert 'fastapi is not installed; run in a clone of PRIP: pip install ".[annotate]"' in capsys.readouterr().err


@pytest.mark.parametrize("task", [PREFERENCE, RELEVANCE])
def test_the_browser_learns_nothing_of_refiners(folder: Path, task: str) -> None:
    study = study_of(folder, task)
    client = client_of(study)
    state = client.get("/api/state", params={"annotator": "Ann"}).json()
    image = client.get(f"/image/{state['current']['images'][0]}", params={"annotator": "Ann"})
    assert image.status_code == 200 and image.content.startswith(b"\x89PNG")
    sent = json.dumps(state).encode() + image.content
    secrets = {b"none", b"rl,", b"golden hour", b"refiner", *(row.image.encode() for row in read_rows(folder))}
    assert not [secret for secret in secrets if secret in sent]
    tokens = {name: study.view(name).images for name in ("ann", "bob")}
    assert not set(itertools.chain(*tokens["ann"].values())) & set(itertools.chain(*tokens["bob"].values()))
    assert client.get(f"/image/{state['current']['images'][0]}", params={"annotator": "bob"}).status_code == 404


def test_an_answer_is_on_disk_before_the_next_question_and_undo_adds(folder: Path) -> None:
    study, client = study_of(folder), client_of(study_of(folder))
    state = client.get("/api/state", params={"annotator": "Ann"}).json()
    body = {"annotator": "Ann", "item": state["current"]["item"], "answer": "left", "seconds": 2.0}
    name = request_name()
    after = client.post("/api/answer", json={**body, "request": name}).json()
    assert after["counts"] and after["answered"] == 1 and after["current"]["item"] != state["current"]["item"]
    assert [answer.answer for answer in read_answers(folder)] == ["left"], "another connection sees it"
    assert client.post("/api/answer", json={**body, "request": name}).json()["answered"] == 1, "sent again, once"
    second_tab = client.post("/api/answer", json={**body, "answer": "right", "request": request_name()}).json()
    assert not second_tab["counts"] and read_answers(folder)[0].answer == "left"
    stale = client.post("/api/undo", json={"annotator": "Ann", "answered": 5, "request": request_name()}).json()
    assert not stale["counts"] and len(read_answers(folder)) == 1
    undone = client.post("/api/undo", json={"annotator": "Ann", "answered": 1, "request": request_name()}).json()
    assert undone["counts"] and undone["current"]["item"] == state["current"]["item"] and read_answers(folder) == []
    with sqlite3.connect(study.log.path) as connection:
        assert connection.execute("SELECT kind FROM rows ORDER BY id").fetchall() == [("answer",), ("undo",)]
        with pytest.raises(sqlite3.IntegrityError, match="rows stay"):
            connection.execute("DELETE FROM rows")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"answer": "2"}, 422),
        ({"answer": "both"}, 422),
        ({"seconds": -1}, 422),
        ({"seconds": "fast"}, 422),
        ({"item": "../../etc/passwd"}, 422),
        ({"annotator": "<script>"}, 422),
        ({"annotator": "x" * 200}, 422),
        ({"extra": 1}, 422),
        ({"annotator": "a" * 5000}, 413),
    ],
)
def test_what_is_no_answer_is_refused(folder: Path, body: dict, status: int) -> None:
    client = client_of(study_of(folder))
    item = client.get("/api/state", params={"annotator": "ann"}).json()["current"]["item"]
    whole = {"annotator": "ann", "item": item, "answer": "tie", "seconds": 1.0, "request": request_name(), **body}
    assert client.post("/api/answer", json=whole).status_code == status and read_answers(folder) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8765"},
        {"host": "127.0.0.1:9"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
    ],
)
def test_requests_of_other_sites_are_refused(folder: Path, headers: dict[str, str]) -> None:
    client = client_of(study_of(folder))
    assert client.get("/api/study").status_code == 200
    refused = client.get("/api/study", headers=headers)
    assert refused.status_code == 403 and "its own name" in refused.text
    assert set(PAGE_HEADERS.items()) <= set(refused.headers.items()), "a refusal has the server's headers too"


def test_a_server_for_the_network_answers_addresses_and_no_names() -> None:
    local, network = (Guard(None, host, 8765, 4096) for host in ("127.0.0.1", "0.0.0.0"))
    for host, own in (("localhost", (True, True)), ("192.168.1.7", (False, True)), ("evil.example", (False, False))):
        headers = {"host": f"{host}:8765", "origin": f"http://{host}:8765"}
        assert (local.is_own(headers), network.is_own(headers)) == own
    assert not network.is_own({"host": "192.168.1.7"}) and not network.is_own({}), "another port, or no host"
    shouted = Guard(None, "LocalHost", 8765, 4096)
    assert all(shouted.is_own({"host": f"{host}:8765"}) for host in ("localhost", "LOCALHOST", "127.0.0.1"))
    named = Guard(None, "MyHost.example", None, 4096, names=["Proxy.example"])
    for host in ("myhost.example", "MyHost.example", "proxy.example"):
        assert named.is_own({"host": host, "origin": f"http://{host}"}), "names have no case"
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert local.is_own({"host": "127.0.0.1:8765", **followed}), "a link to the page"
    assert not local.is_own({"host": "127.0.0.1:8765", **followed, "sec-fetch-dest": "iframe"})
    assert not local.is_own({"host": "127.0.0.1:8765", **followed}, "POST"), "no link sends one"
    for host in ("127.0.0.1:8765?evil.com", "127.0.0.1:8765#.evil.com"):
        assert not local.is_own({"host": host})


def test_images_tell_no_prompt_and_look_the_same(folder: Path) -> None:
    address = read_rows(folder)[0].image
    path = image_path(folder / "images", address)
    assert path == ImageStore(folder / "images").path(address)
    whole = path.read_bytes()
    bare = without_descriptions(whole)
    assert b"tEXt" in whole and b"tEXt" not in bare
    with Image.open(io.BytesIO(whole)) as first, Image.open(io.BytesIO(bare)) as second:
        assert first.tobytes() == second.tobytes() and second.info == {}
    assert without_descriptions(whole[:-5])[:16] == whole[:16], "a file that was cut short"


def test_names_of_annotators() -> None:
    assert check_annotator("  Ann   O'Hara ") == "ann o'hara" and check_annotator("ÅSA") == "åsa"
    for name in ("", " ", "<b>", "-ann", "x" * 41, "a/b", "a\nb\0"):
        with pytest.raises(InputError, match="annotator: expected 1 to 40 letters"):
            check_annotator(name)


def test_alpha_is_krippendorffs() -> None:
    # Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: the example of four observers, nominal .743
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    ratings = [
        (str(coder), str(unit), value)
        for coder, row in enumerate(table)
        for unit, value in enumerate(row)
        if value is not None
    ]
    assert agreement(ratings, nominal_distance) == pytest.approx(0.743, abs=5e-4)
    assert agreement(ratings, ordinal_distance) == pytest.approx(0.815, abs=5e-4)
    assert agreement([("a", "1", 0), ("b", "2", 1)], nominal_distance) is None, "nobody answered the same question"


def answer(annotator: str, prompt: str, left: str, right: str, given: str, task: str = PREFERENCE) -> Answer:
    names = ("id", "x", "x", 0)
    item = f"{prompt}-{sorted((left, right))}"
    return Answer(annotator, task, item, prompt, prompt, *names[1:2], 0, left, "", right, "", given, "2026-01-01", 1.0)


def test_shares_and_means_by_hand() -> None:
    given = [
        answer("a", "cat", "rl", "none", "left"),
        answer("b", "cat", "none", "rl", "right"),
        answer("a", "dog", "rl", "none", "tie"),
        answer("b", "dog", "rl", "none", "right"),
        answer("a", "cat", "rl", "", "2", RELEVANCE),
        answer("a", "dog", "rl", "", "1", RELEVANCE),
    ]
    found = summarise(given)
    (pair,) = found["preference"]
    shares = {name: pair[name] for name in ("win", "tie", "loss", "n")}
    assert shares == {"win": 0.5, "tie": 0.25, "loss": 0.25, "n": 4}
    assert (pair["refiner"], pair["against"], pair["low"], pair["high"]) == ("rl", "none", 0.0, 1.0)
    (mean,) = found["relevance"]
    assert (mean["mean"], mean["low"], mean["high"], mean["n"]) == (1.5, 1.0, 2.0, 2)
    assert (found["annotators"], found["answers"]) == (2, 6)
    preference, relevance, agreeing = people_tables(found)
    assert [cell.text for cell in preference.rows[0]] == ["rl", "none", "50.0 %", "25.0 %", "25.0 %", "4"]
    assert preference.rows[0][2].interval == "0.0 to 100.0 %"
    assert [(cell.text, cell.interval) for cell in relevance.rows[0][1:]] == [("1.50", "1.00 to 2.00"), ("2", "")]
    # Units (rl, rl) and (tie, none): two pairs of values, D_o = 2/4; D_e = (2*1 + 2*1 + 1*1) * 2 / (4 * 3) = 10/12
    assert found["agreement"]["preference"] == pytest.approx(1 - (2 / 4) / (10 / 12))
    assert [cell.text for cell in agreeing.rows[0]] == ["relevance", "-"], "one annotator agrees with nobody"
    assert agreeing.rows[1][1].text == "0.400"


def test_what_cannot_be_told_is_none() -> None:
    alike = [answer(name, "cat", "rl", "none", "left") for name in ("a", "b")]
    found = summarise(alike)
    assert found["agreement"] == {"relevance": None, "preference": None}, "all alike: chance would agree as well"
    (pair,) = found["preference"]
    assert (pair["win"], pair["low"], pair["high"]) == (1.0, None, None), "one prompt has no interval"
    assert people_tables(found)[0].rows[0][2].interval == "" and people_tables(None) == []


def test_intervals_resample_prompts_and_not_answers() -> None:
    values, clusters = [1.0] * 30 + [0.0] * 10, ["cat"] * 30 + ["dog"] * 10
    # Two clusters: a resample holds cat twice (mean 1), dog twice (0) or each once (3/4), with odds 1 : 1 : 2
    assert mean_with_interval(values, clusters) == (0.75, 0.0, 1.0)
    even = mean_with_interval([1.0, 0.0] * 20, [f"{place // 2}" for place in range(40)])
    assert even == (0.5, 0.5, 0.5), "every prompt is half and half"


def test_answers_about_images_that_are_gone_are_left_out(folder: Path, capsys: pytest.CaptureFixture) -> None:
    answer_all(study_of(folder), "ann", "tie")
    rows = parquet.read_table(folder / "results.parquet").to_pylist()
    for row in rows:
        if row["refiner"] == "rl" and row["user_prompt"] == f"a {SUBJECTS[0]}":
            row["image"] = "0" * 32
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "results.parquet")
    people = people_summary(folder)
    assert people is not None and people["answers"] == 2 * len(SUBJECTS) - 2
    assert main(["annotate", str(folder), "--summary"]) == 0
    assert "left out: 2 answers about images that this evaluation no longer holds" in capsys.readouterr().err


def test_answers_are_exported_and_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert people_summary(folder) is None
    assert main(["annotate", str(folder), "--summary"]) == 2 and "has no answers yet" in capsys.readouterr().err
    study = study_of(folder)
    for annotator in ("ann", "bob"):
        answer_all(study, annotator, "left")
    target = tmp_path / "answers.csv"
    assert main(["annotate", str(folder), "--export", str(target), "--summary"]) == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert len(rows) == 2 * len(study.items) and {row["answer"] for row in rows} == {"left"}
    assert {row["refiner_left"] for row in rows} == set(REFINERS) and rows[0]["seconds"] == "1.5"
    assert to_csv(read_answers(folder)) == target.read_text()
    assert "2 annotators gave 24 answers" in " ".join(capsys.readouterr().out.split())
    people = people_summary(folder)
    assert people is not None and people["annotators"] == 2 and people["preference"][0]["n"] == 24


def test_a_taken_port_and_other_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture) -> None:
    from prip.inference.network.listening import listen

    taken = listen("127.0.0.1", 0)
    port = str(taken.getsockname()[1])
    for options, message in (
        (["--port", port], f"port {port} of 127.0.0.1 is taken"),
        (["--port", "70000"], "port: expected a number from 0 to 65535"),
        (["--generator", "camera"], "generator: expected renderer, got 'camera'"),
        (["--refiners", "none"], "refiners: expected two of"),
    ):
        assert main(["annotate", str(folder), "--no-browser", *options]) == 2
        assert message in capsys.readouterr().err
    taken.close()
