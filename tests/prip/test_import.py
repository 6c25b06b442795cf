"""`import prip` is light, and what it exports is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import prip


def test_import_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, prip, prip.errors, prip.protocols; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", prip.__all__)
def test_exports(name: str) -> None:
    assert getattr(prip, name) is not None
    assert name in dir(prip)


def test_version_is_that_of_the_distribution() -> None:
    assert prip.__version__.count(".") >= 1


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'refin'"):
        _ = prip.refin


@pytest.fixture
def misfit(tmp_path: Path) -> dict[str, str]:
    """Environment variables with which Python finds a torchvision that was built for another torch."""
    (tmp_path / "torchvision").mkdir()
    failure = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "torchvision" / "__init__.py").write_text(failure)
    metadata = tmp_path / "torchvision-0.29.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.29.1\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


REASON = "torchvision cannot be imported: operator torchvision::nms does not exist; install the version that fits"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "prip.inference.cli", "refine", "a cat"],
        ["-c", "from prip.training.cli.command import main; exit(main(['rl', '--config', 'smoke', '--run', 'none']))"],
        ["-c", "import prip\ntry: prip.refine('a cat')\nexcept prip.PripError as error: print(error); exit(2)"],
    ],
)
def test_a_package_for_another_torch_is_named(misfit: dict[str, str], command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command], env=misfit, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2) and REASON in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr


MINI = Path(__file__).resolve().parents[2] / "checkpoints" / "prip-mini"


@pytest.mark.parametrize(
    "line",
    [
        "from prip.refiner import Refiner",
        "from prip.modeling import PripModel",
        f"from prip.pivot_encoders import load_pivot_encoder as load; load({str(MINI / 'pivot_encoder')!r})",
        "from prip.rewards import load_reward; load_reward('clip-score')",
        f"from prip.generators import load_generator; load_generator({str(MINI / 'generator')!r})",
    ],
)
def test_every_way_to_load_models_names_it(misfit: dict[str, str], line: str) -> None:
    done = subprocess.run([sys.executable, "-c", line], env=misfit, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith(f"prip.errors.BrokenPackageError: {REASON}"), done.stderr


def test_core_imports_neither_training_nor_inference() -> None:
    code = (
        "import sys, prip.refiner, prip.modeling.prip_model; "
        "print([name for name in sys.modules if name.startswith(('prip.training', 'prip.inference'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
