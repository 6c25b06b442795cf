"""The layout holds: no import circle, no crowd of parameters, no `Any` handed to a caller, no crumb of a file."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"prip": "prip", "training": "prip.training", "inference": "prip.inference"}
HOSTED = "inference/webui/scripts"
"""Runs inside of another program, as one file."""

MOST_PARAMETERS = 8
MANY_PARAMETERS = {"prip.refiner.refine", "prip.refiner.Refiner.refine"}
"""The public refine family, and factories whose parameters are the settings of a config."""

LEAST_LINES = 60
SMALL_FILES = {
    "prip.training.settings.encoder": "one stage, one file of settings",
    "prip.training.settings.export": "one stage, one file of settings",
    "prip.training.settings.stand_ins": "one stage, one file of settings",
    "prip.control.artists": "one table, one file",
    "prip.control.faults": "one table, one file",
    "prip.control.styles": "one table, one file",
    "prip.import_warnings": "runs at `import prip`, and only lists what others log",
}
"""Files of under LEAST_LINES lines with one importer, and why each stands alone."""


@cache
def modules() -> dict[str, Path]:
    """Return every module of the product with its file."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if HOSTED in path.as_posix():
                continue
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield the product's modules that a module imports, inside functions and for type checkers too."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                if name in modules() or source in modules():
                    yield name if name in modules() else source


def functions(module: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the functions and methods of a module, without those inside of others, by their dotted names."""

    def below(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from below(child, f"{name}.{child.name}")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{child.name}", child

    yield from below(tree(module), module)


def test_no_import_circle() -> None:
    arrows = {module: set(imports(module)) - {module} for module in modules()}
    done: set[str] = set()

    def circle(module: str, way: tuple[str, ...]) -> tuple[str, ...] | None:
        if module in way:
            return (*way[way.index(module) :], module)
        if module in done:
            return None
        for other in sorted(arrows[module]):
            if found := circle(other, (*way, module)):
                return found
        done.add(module)
        return None

    circles = [" -> ".join(found) for module in modules() if (found := circle(module, ()))]
    assert circles == [], "\n".join(circles)


def test_no_crowd_of_parameters() -> None:
    crowds = []
    for module in modules():
        for name, function in functions(module):
            arguments = function.args
            names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MOST_PARAMETERS and name not in MANY_PARAMETERS:
                crowds.append(f"{name}: {count}")
    assert crowds == [], "\n".join(crowds)


def test_no_any_is_handed_to_a_caller() -> None:
    offences = []
    for module in modules():
        for name, function in functions(module):
            private = any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
            if not private and function.returns is not None and ast.unparse(function.returns) == "Any":
                offences.append(name)
    assert offences == [], "\n".join(offences)


def test_no_crumb_of_a_file() -> None:
    importers = defaultdict(set)
    for module in modules():
        for other in imports(module):
            importers[other].add(module)
    crumbs = [
        f"{module}: only {', '.join(importers[module])}"
        for module, path in modules().items()
        if path.name != "__init__.py"
        and len(path.read_text(encoding="utf-8").splitlines()) < LEAST_LINES
        and len(importers[module] - {module}) == 1
        and module not in SMALL_FILES
    ]
    assert crumbs == [], "\n".join(crumbs)


@pytest.mark.parametrize("module", sorted(SMALL_FILES))
def test_an_excuse_is_still_needed(module: str) -> None:
    assert module in modules() and len(modules()[module].read_text(encoding="utf-8").splitlines()) < LEAST_LINES


def test_one_fixture_reads_outside_of_the_repository() -> None:
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in ("conftest.py", Path(__file__).name)]
    outside = [
        path.name for path in tests if "parents[3]" in path.read_text("utf-8") or "../shared" in path.read_text("utf-8")
    ]
    assert outside == [], "take the fixture real_data"
