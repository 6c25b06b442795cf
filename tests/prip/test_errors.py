"""Errors of ours are also the built-in errors that a caller would expect."""

from __future__ import annotations

import sys
import warnings

import pytest

from prip.command_line import printed_warnings
from prip.errors import (
    CheckpointError,
    InputError,
    MissingExtraError,
    PripError,
    PripWarning,
    collected_warnings,
    require,
    warn,
)


@pytest.mark.parametrize(
    ("error", "built_in"), [(InputError, ValueError), (CheckpointError, OSError), (MissingExtraError, ImportError)]
)
def test_kinds(error: type[Exception], built_in: type[Exception]) -> None:
    assert issubclass(error, PripError)
    assert issubclass(error, built_in)


def test_require_returns_the_module() -> None:
    assert require("json.decoder", "train").JSONDecoder is not None


@pytest.mark.parametrize("module", ["no_such_module_of_anyone", "no_such_module_of_anyone.inner"])
def test_require_names_the_extra(module: str) -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[train\]"'):
        require(module, "train")


def test_require_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match="Pillow is not installed"):
        require("PIL.Image", "generate")


def test_require_lets_other_import_errors_through(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_module_for_test.py").write_text("import no_such_module_of_anyone")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("broken_module_for_test", "train")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_command_tells_warnings_as_it_tells_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(DeprecationWarning), printed_warnings("prip compare"):
        for _ in range(2):
            warn("1 prompt\nwas returned unchanged")
        warnings.warn("of another", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "prip compare: warning: 1 prompt was returned unchanged\n", "once"
    with pytest.warns(PripWarning):
        warn("later")


def test_warnings_are_collected_and_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    with collected_warnings() as notes:
        for _ in range(2):
            warn("1 prompt was returned unchanged")
        warnings.warn("of another", DeprecationWarning, stacklevel=1)
    assert notes == ["1 prompt was returned unchanged"] * 2
    assert list(recwarn) == []
