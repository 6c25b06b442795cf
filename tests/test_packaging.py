"""The distribution: what the wheel holds, where it can be imported from, and which package may import which."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
ROOMS = ("prip.training", "prip.inference", "prip.checkpoints")


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_dependency_installs_on_the_oldest_python() -> None:
    """A distribution that needs a newer Python would leave pip without a version to install."""
    oldest = setup_cfg()["options"]["python_requires"].removeprefix(">=").strip()
    lines = [setup_cfg()["options"]["install_requires"], *setup_cfg()["options.extras_require"].values()]
    names = {Requirement(line).name for text in lines for line in text.split("\n") if line.strip()} - {"prip"}
    checked = {}
    for name in names:
        with suppress(PackageNotFoundError):  # an extra that is not installed here
            checked[name] = metadata(name).get("Requires-Python") or ""
    assert {"torch", "transformers", "diffusers"} <= set(checked)
    assert {name: needs for name, needs in checked.items() if f"{oldest}.9" not in SpecifierSet(needs)} == {}
    for page in ("README.md", "docs/install.md"):
        assert f"Python {oldest} or newer" in (ROOT / page).read_text(encoding="utf-8")
    assert f'python_version = "{oldest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def folder_of_package() -> dict[str, str]:
    """Package -> folder at the repository root, as setup.cfg maps them."""
    lines = setup_cfg()["options"]["package_dir"].split("\n")
    return {package.strip(): folder.strip() for package, folder in (line.split("=") for line in lines if line.strip())}


def repository_files() -> list[str]:
    """Tracked files, and new ones that git does not ignore, relative to the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; its standard output. A failure shows what it printed."""
    process = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert process.returncode == 0, f"{command}:\n{process.stdout}\n{process.stderr}"
    return process.stdout.strip()


def pip(*arguments: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", *arguments, *OFFLINE, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, with a module of an earlier build that has been deleted since."""
    folder = tmp_path_factory.mktemp("source")
    for name in repository_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    stale = folder / "build" / "lib" / "prip" / "deleted.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", source, "--wheel-dir", folder, cwd=folder)
    (path,) = folder.glob("prip-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for site-packages, with the wheel in it."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", wheel, "--target", folder, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def editable(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for site-packages, with an editable install of `source` in it."""
    prefix = tmp_path_factory.mktemp("prefix")
    pip("install", "--ignore-installed", "--prefix", prefix, "--editable", source, cwd=prefix)
    (finder,) = prefix.rglob("__editable__*.pth")
    return finder.parent


def test_the_wheel_holds_exactly_the_files_of_the_packages(wheel: Path) -> None:
    expected = set()
    for package, folder in folder_of_package().items():
        target = package.replace(".", "/")
        expected |= {
            f"{target}/{name[len(folder) + 1 :]}" for name in repository_files() if name.startswith(folder + "/")
        }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert sorted(expected - held) == [], "missing in the wheel: add the package or its data to setup.cfg"
    assert sorted(held - expected) == [], "in the wheel, but no file of the repository"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_source_distribution_holds_what_the_wheel_needs_and_no_tests(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, source, cwd=tmp_path)
    (archive,) = tmp_path.glob("prip-*.tar.gz")
    with tarfile.open(archive) as sources:
        assert not [name for name in sources.getnames() if "/tests" in name]
    pip("wheel", archive, "--wheel-dir", tmp_path, cwd=tmp_path)
    assert names_in(next(tmp_path.glob("*.whl"))) == names_in(wheel)


def test_the_wheel_carries_licence_notice_and_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(texts[f"licenses/{name}"]) == (ROOT / name).read_bytes()
        commands = archive.read(texts["entry_points.txt"]).decode()
    assert "prip = prip.inference.cli:main" in commands and "prip-train = prip.training.cli.entry:main" in commands


# What a program run from a folder prints: where prip and its three rooms come from.
SHOW = f"import importlib, prip; print(*[importlib.import_module(n).__file__ for n in ('prip', *{ROOMS!r})], sep='\\n')"


def origins(site: Path, cwd: Path) -> list[Path]:
    """The four packages' __init__ files, as a program sees them that runs in `cwd` with `site` as its site-packages.

    -S keeps the environment's own install of prip out; sys.path[0] is `cwd`, as it is for `python -m` and `python -c`.
    """
    lines = run(sys.executable, "-S", "-c", f"import site; site.addsitedir({str(site)!r}); {SHOW}", cwd=cwd)
    return [Path(line).resolve() for line in lines.splitlines()]


def test_an_installed_wheel_is_imported_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    names = ("prip", *(room.replace(".", "/") for room in ROOMS))
    assert origins(installed, tmp_path) == [installed.resolve() / name / "__init__.py" for name in names]


@pytest.mark.parametrize("how", ["installed", "editable"])
def test_a_run_from_the_root_finds_the_rooms_of_the_checkout(
    how: str, source: Path, request: pytest.FixtureRequest
) -> None:
    site = request.getfixturevalue(how)
    assert origins(site, source) == [
        source.resolve() / folder / "__init__.py" for folder in folder_of_package().values()
    ]


def test_an_editable_install_is_imported_from_elsewhere(editable: Path, source: Path, tmp_path: Path) -> None:
    folders = folder_of_package().values()
    assert origins(editable, tmp_path) == [source.resolve() / folder / "__init__.py" for folder in folders]


def test_importing_prip_loads_neither_torch_nor_transformers() -> None:
    heavy = "('torch', 'transformers', 'tokenizers', 'diffusers', 'lightning', 'pandas')"
    loaded = run(sys.executable, "-c", f"import prip, sys; print([n for n in {heavy} if n in sys.modules])", cwd=ROOT)
    assert loaded == "[]"


def test_version_bounds_admit_what_was_promised() -> None:
    lines = setup_cfg()["options"]["install_requires"].strip().splitlines()
    wanted = {requirement.name: requirement.specifier for requirement in map(Requirement, lines)}
    assert all(wanted["torch"].contains(version) for version in ("2.11.0", "2.12.1", "2.13.0", "2.13.0+cpu"))
    assert all(wanted["transformers"].contains(version) for version in ("5.17.0", "5.23.0", "5.99.0"))
    for name in ("tokenizers", "safetensors", "huggingface_hub"):
        assert not any(bound.operator == ">=" for bound in wanted[name]), f"transformers asks for a later {name}"
    assert not wanted["huggingface_hub"].contains("3.0.0"), "prip.hub relies on the layout of its cache"
    assert not any(requirement.startswith("torchvision") for requirement in (ROOT / "setup.cfg").read_text().split())


def imported_names(path: Path, package: str) -> Iterator[str]:
    """Dotted names that a source file imports, relative ones resolved, and strings such as import_module is given."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"prip(\.\w+)+", node.value)
        ):
            yield node.value


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("prip", ("prip.training", "prip.inference")),
        ("prip.training", ("prip.inference",)),
        ("prip.inference", ("prip.training",)),
    ],
)
def test_rooms_import_only_what_they_may(room: str, forbidden: tuple[str, ...]) -> None:
    folder = ROOT / folder_of_package()[room]
    paths = sorted(folder.rglob("*.py"))
    assert paths
    forbidden += ("training", "inference", "checkpoints")  # as top-level names they exist only in a run from the root
    offences = []
    for path in paths:
        package = ".".join([room, *path.relative_to(folder).parts[:-1]])
        for name in imported_names(path, package):
            if any(f"{name}.".startswith(f"{other}.") for other in forbidden):
                offences.append(f"{path.relative_to(ROOT)} imports {name}")
    assert offences == []


def test_every_package_that_is_imported_is_asked_for() -> None:
    """What comes with another package today may not come with it tomorrow."""
    config = setup_cfg()
    lines = config["options"]["install_requires"].splitlines()
    lines += [line for extra in config["options.extras_require"].values() for line in extra.splitlines()]
    asked_for = {canonicalize_name(Requirement(line).name) for line in lines if line.strip()}
    named_otherwise = {"PIL": "pillow", "yaml": "pyyaml"}
    ours = {"prip", "training", "inference", "checkpoints", "benchmarks"}
    of_hosts = {"inference/webui": {"modules", "gradio"}}  # what runs there in place of us brings these
    offences = []
    for folder in sorted(ours):
        for path in sorted((ROOT / folder).rglob("*.py")):
            package = ".".join(["prip", *path.relative_to(ROOT).parts[:-1]])
            roots = {name.split(".")[0] for name in imported_names(path, package)}
            for host, brought in of_hosts.items():
                roots -= brought if path.is_relative_to(ROOT / host) else set()
            for root in sorted(roots - ours - sys.stdlib_module_names):
                if canonicalize_name(named_otherwise.get(root, root)) not in asked_for:
                    offences.append(f"{path.relative_to(ROOT)} imports {root}")
    assert offences == []


def test_versions_that_crash_are_excluded() -> None:
    config = setup_cfg()
    crash = {"pillow": "10.0.1", "pydantic": "2.0.2", "jsonargparse": "4.48.0", "lightning": "2.5.2", "nltk": "3.9"}
    lines = [line for extra in config["options.extras_require"].values() for line in extra.splitlines()]
    requirements = [Requirement(line) for line in lines if line.strip()]
    for name, version in crash.items():
        asked = [requirement for requirement in requirements if requirement.name == name]
        assert asked and not any(requirement.specifier.contains(version) for requirement in asked), name


def test_extras_of_training_bring_training() -> None:
    extras = setup_cfg()["options.extras_require"]
    assert all("prip[train]" in extras[name].splitlines() for name in ("ray", "deepspeed"))


def test_the_embedded_checkpoint_is_whole_small_and_without_pickles() -> None:
    folder = ROOT / "checkpoints" / "prip-mini"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    for part in ("refiner", "warmup/encoder", "generator", "pivot_encoder", "rewards", "readers/a", "readers/b"):
        assert list((folder / part).rglob("*.safetensors")), part
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert {"world/generator", "prepare", "encoder", "decoder", "rl"} <= set(record["stages"])
    shares = record["obedience"]
    assert all(share >= 0.8 for factor, share in shares.items() if factor != "place"), shares
