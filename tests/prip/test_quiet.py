"""What other packages say on import is left out, line by line, and nothing else is."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys

import pytest

from prip.import_warnings import LINES, hush_imports

DRAWING = (
    "import logging; logging.basicConfig(); "
    "from prip.inference.comparison.workbench import Workbench; from prip.loading.folders import whole_folder; "
    "Workbench.load(whole_folder('prip-mini', None), 'cpu')"
)


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["-c", "from prip import refine; refine('a cat')"], ""),
        (["-m", "prip.inference.cli", "refine", "a cat"], "a cat, "),
        (["-c", DRAWING], ""),
    ],
    ids=["Python", "command", "generator"],
)
@installed("torchao")
def test_torchao_is_not_heard(arguments: list[str], out: str) -> None:
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(out) if out else process.stdout == ""


@installed("deepspeed")
def test_deepspeed_is_not_heard() -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import prip.modeling.prip_model, deepspeed"], capture_output=True, text=True, check=True
    )
    assert (process.stdout, process.stderr) == ("", "")


@pytest.mark.parametrize("name", LINES)
def test_all_else_is_heard(name: str, caplog: pytest.LogCaptureFixture) -> None:
    hush_imports()
    hush_imports()
    logger = logging.getLogger(name)
    assert sum(type(one).__module__ == "prip.import_warnings" for one in logger.filters) == 1
    logger.addHandler(caplog.handler)  # torch's and DeepSpeed's do not hand on
    try:
        logger.warning(LINES[name][0], *["x"] * LINES[name][0].count("%s"))
        logger.warning("something of its own")
        logger.error(LINES[name][0], *["x"] * LINES[name][0].count("%s"))
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.levelname for record in caplog.records} == {"WARNING", "ERROR"}
    assert {record.msg for record in caplog.records if record.levelno == logging.WARNING} == {"something of its own"}
