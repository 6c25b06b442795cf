"""The notebooks: what is committed is whole and small and not stale, and each runs from top to bottom anywhere."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PATHS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
NAMES = ["quickstart", "training", "ablation", "paper"]
TAG = "same"
"""On cells whose text is the same wherever they run, but for the last digits of numbers."""
PICTURES = {"quickstart": 3, "training": 4, "ablation": 2, "paper": 0}
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)")


def read(name: str) -> Any:
    return nbformat.read(PATHS[name], as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_same(cell: Any) -> bool:
    return TAG in cell.metadata.get("tags", ())


def printed(cell: Any) -> str:
    """What a cell has printed, and the text of what its last line gives."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout"]
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    return "".join([*texts, *(output.data["text/plain"] for output in results)])


def pictures(cell: Any) -> list[bytes]:
    shown = [output.data for output in cell.outputs if output.output_type in ("display_data", "execute_result")]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def assert_same(committed: str, now: str) -> None:
    """Asserts that two texts have the same words, and numbers that differ by a twentieth at most."""
    old, new = (NUMBER.split(" ".join(text.split())) for text in (committed, now))
    assert [part.split() for part in new[::2]] == [part.split() for part in old[::2]]
    assert [float(part) for part in new[1::2]] == pytest.approx([float(part) for part in old[1::2]], rel=0.05, abs=0.02)


def test_all_of_them_are_here() -> None:
    assert sorted(PATHS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_whole_small_and_clean(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert PATHS[name].stat().st_size < 300_000
    assert re.match(r"# \S.*\n\n\S.{100}", notebook.cells[0].source), "a title, and what it shows"
    assert 'pip install -e ".[notebooks]"' in notebook.cells[0].source
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run once, from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = PATHS[name].read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|home|root|work|Users)/|\"iopub|it/s|\d\d:\d\d:\d\d", text), "a path or a time in it"


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_has_its_pictures(name: str) -> None:
    image_module = pytest.importorskip("PIL.Image", reason="the generate extra is not installed")
    found = [picture for cell in code_cells(read(name)) for picture in pictures(cell)]
    assert len(found) == PICTURES[name]
    for picture in found:
        with image_module.open(io.BytesIO(picture)) as image:
            assert image.format == "PNG" and min(image.size) >= 100
            assert len(image.convert("RGB").getcolors(1 << 24)) > 10, "nothing is drawn in it"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = "".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not (PATHS[name].parent / target).exists()] == []


def test_what_quickstart_shows_is_what_refine_gives() -> None:
    """Its cells up to the first picture, in this process."""
    cells = code_cells(read("quickstart"))
    first_picture = next(place for place, cell in enumerate(cells) if pictures(cell))
    names: dict[str, object] = {}
    for cell in cells[:first_picture]:
        assert is_same(cell)
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(cell.source, cell.id, "exec"), names)
        assert stream.getvalue() == printed(cell), cell.source
    assert printed(cells[0]).startswith("a cat, ")


def test_curves_are_over_whole_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the cell of the training notebook draws them that defines how."""
    pandas = pytest.importorskip("pandas", reason="the evaluate extra is not installed")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the evaluate extra is not installed")
    (cell,) = [cell for cell in code_cells(read("training")) if "def curves(" in cell.source]
    log = pandas.DataFrame({"step": [-1, 0, 1, 2, 2], "reward": [None, 1.0, 2.0, None, 3.0]})
    monkeypatch.setattr(pandas, "read_csv", lambda path: log)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    names: dict[str, Any] = {"pd": pandas}
    exec(compile(cell.source.split("\n\ncurves(")[0], cell.id, "exec"), names)
    names["curves"]("rl", ("reward",), ("reward",))
    axis = pyplot.gcf().axes[0]
    assert axis.lines[0].get_xdata().tolist() == [1, 2, 3], "after so many steps"
    assert all(float(tick).is_integer() for tick in axis.get_xticks())
    pyplot.close("all")


def test_what_jupyter_leaves_beside_a_notebook_is_ignored() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "check-ignore", "notebooks/.ipynb_checkpoints/training.ipynb"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient", reason="the notebooks extra is not installed")
    place, temporary = tmp_path / "work", tmp_path / "temporary"
    place.mkdir()
    temporary.mkdir()
    environment = {
        **os.environ,
        "PATH": os.defpath,  # an environment that nobody has activated
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "TMPDIR": str(temporary),
    }
    committed, notebook = read(name), read(name)
    for cell in code_cells(notebook):
        cell.outputs = []
    resources = {"metadata": {"path": str(place)}}
    client.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute(env=environment)
    for old, new in zip(code_cells(committed), code_cells(notebook), strict=True):
        assert not [output for output in new.outputs if output.output_type == "error"]
        assert len(pictures(new)) == len(pictures(old)), new.source
        if is_same(old):
            assert_same(printed(old), printed(new))
    assert list(place.iterdir()) == [], "files beside the notebook"
    assert [path for kind in ("runs", "evaluation") for path in temporary.rglob(kind)] == [], "files after it"
