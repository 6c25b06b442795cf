"""`prip install`, and what docs/comfyui.md and docs/webui.md say of it and of what it installs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prip.errors import InputError
from prip.inference.cli import main
from prip.inference.comfyui import NODE_CLASS_MAPPINGS
from prip.inference.commands.install import HOSTS, NAMES, install

ROOT = Path(__file__).resolve().parents[2]
HOMES = {"comfyui": "ComfyUI", "webui": "stable-diffusion-webui"}
FILES = {
    "comfyui": {"__init__.py", "node.py", "web/prip.js"},
    "webui": {"__init__.py", "metadata.ini", "scripts/prip_webui.py", "python.txt", "options.json"},
}


def page(host: str) -> str:
    return (ROOT / "docs" / f"{host}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("host", sorted(HOSTS))
def test_the_commands_of_the_docs_put_it_where_the_host_looks(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    target = tmp_path / HOMES[host] / HOSTS[host] / "prip"
    target.parent.mkdir(parents=True)
    fences = re.findall(r"^```sh\n(.*?)^```", page(host), re.M | re.S)
    commands = [shlex.split(line) for fence in fences for line in fence.splitlines()]
    (command,) = [words for words in commands if words[0] == "prip"]
    for _ in range(2):
        assert main(command[1:]) == 0
        assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} == FILES[host]
        next(target.rglob("*.py")).write_text("an old one", encoding="utf-8")
    assert main(command[1:]) == 0
    assert not [path for path in target.rglob("*.py") if path.read_text(encoding="utf-8") == "an old one"]


@pytest.mark.parametrize("host", sorted(HOSTS))
def test_what_is_there_and_not_ours_stays(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", host, str(tmp_path)]) == 2
    assert f"expected that of {NAMES[host]}, with {HOSTS[host]} in it, got {str(tmp_path)!r}" in capsys.readouterr().err
    (tmp_path / "inner" / HOSTS[host]).mkdir(parents=True)
    assert main(["install", host, str(tmp_path / "inner" / HOSTS[host])]) == 2
    wanted = f"folder: expected {tmp_path / 'inner'}, got {str(tmp_path / 'inner' / HOSTS[host])!r}"
    assert wanted in capsys.readouterr().err
    target = tmp_path / HOSTS[host] / "prip"
    target.mkdir(parents=True)
    (target / "of-another.py").touch()
    with pytest.raises(InputError, match="exists and does not belong to PRIP"):
        install(host, tmp_path)
    assert [path.name for path in target.iterdir()] == ["of-another.py"]
    shutil.rmtree(target)
    target.symlink_to(ROOT / "inference" / host)
    with pytest.raises(InputError, match="nothing to copy"):
        install(host, tmp_path)


def test_which_python_is_meant_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for host, home in HOSTS.items():
        (tmp_path / home).mkdir()
        assert main(["install", host, str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert f"restart {NAMES[host]} to load it" in told and sys.executable in told
    assert (tmp_path / "extensions" / "prip" / "python.txt").read_text().strip() == sys.executable


def test_help_has_examples_and_loads_no_torch() -> None:
    code = (
        "import sys; from prip.inference.cli import main\n"
        "try: main(['install', '--help'])\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "prip install webui ~/stable-diffusion-webui" in result.stdout and result.stdout.endswith("False\n")


def test_the_docs_name_every_input_of_the_node() -> None:
    inputs = NODE_CLASS_MAPPINGS["PripRefinePrompt"].INPUT_TYPES()
    rows = re.findall(r"^\| (`.*?) \|", page("comfyui"), re.M)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted([*inputs["required"], *inputs["optional"]])
