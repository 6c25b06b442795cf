"""docs/diffusers.md: its lines run, on a small pipeline in the place of a published one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the generate extra is not installed")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "diffusers.md"


def test_the_python_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny_pipelines import stable_diffusion

    monkeypatch.chdir(tmp_path)
    stable_diffusion(safety_checker=None).save_pretrained("my-pipeline")
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert Path("cat.png").is_file()
    assert type(names["pipe"].vae).__name__ == "PatchAutoencoder"  # type: ignore[attr-defined]
    printed = capsys.readouterr().out.splitlines()  # libraries print, too
    assert any(line.startswith("a cat, ") for line in printed) and printed[-1].startswith("people, low quality")
