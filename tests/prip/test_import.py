"""`import prip` is light, and what it exports is there."""

from __future__ import annotations

import subprocess
import sys

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


def test_core_imports_neither_training_nor_inference() -> None:
    code = (
        "import sys, prip.refiner, prip.modeling.prip_model; "
        "print([name for name in sys.modules if name.startswith(('prip.training', 'prip.inference'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
