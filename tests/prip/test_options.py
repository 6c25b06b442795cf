"""The options of `refine`: one set of fields, from which every interface takes its own."""

from __future__ import annotations

import argparse
import pydoc
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

import prip
from prip.errors import InputError
from prip.inference.commands.arguments import add_options
from prip.options import Bounds, OneTextOptionsDict, RefineOptions, RefineOptionsDict, check_number, option_fields
from prip.refiner import Refiner

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_typed_dict_has_the_fields_of_the_dataclass() -> None:
    hints = get_type_hints(RefineOptions) | {"seed": int | Sequence[int]}
    assert get_type_hints(RefineOptionsDict) == hints
    assert get_type_hints(OneTextOptionsDict) == {n: hint for n, hint in hints.items() if n != "num_alternatives"}
    assert RefineOptionsDict.__required_keys__ == frozenset()


def test_every_field_is_described() -> None:
    described = {option.name: option for option in option_fields()}
    hints = get_type_hints(RefineOptions, include_extras=True)
    assert [*described] == [field.name for field in fields(RefineOptions)]
    for field in fields(RefineOptions):
        option = described[field.name]
        bounded = get_origin(hints[field.name]) is Annotated
        assert (option.annotation, option.bounds) == (
            get_args(hints[field.name]) if bounded else (hints[field.name], Bounds())
        )
        assert option.default == field.default and option.doc.endswith(".") and "\n" not in option.doc
        assert option.kind in (int, float, bool, str) and option.is_list is (option.kind is str)
    assert described["token_budget"].annotation == int | None and described["token_budget"].is_optional
    assert described["styles"].annotation == Sequence[str] and described["banned_terms"].annotation == Collection[str]
    assert described["top_p"].bounds == Bounds(0, 1, exclusive=True)


@pytest.mark.parametrize("function", [prip.refine, Refiner.refine])
def test_help_lists_every_option_with_its_default_and_meaning(function) -> None:
    shown = pydoc.render_doc(function, renderer=pydoc.plaintext)
    for option in option_fields():
        assert f"{option.name}: {option.doc} Default: {option.default!r}." in shown
        assert f"{option.name}: " in shown.partition(") ->")[0] or f"{option.name}=" in shown.partition(") ->")[0]
    before, _, after = function.__doc__.partition("num_alternatives: ")
    assert "Args:" in before and "Returns:" in after and "Raises:" in after


def test_flags_have_the_defaults_and_meanings_of_the_fields() -> None:
    """Catches a command with a default of its own, and one without a flag for an option."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    parsed = vars(parser.parse_args([]))
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in parsed.items()} == vars(
        RefineOptions()
    )
    helps = {action.dest: action.help for action in parser._actions}
    for option in option_fields():
        assert option.doc[1:].rstrip(".") in helps[option.name]
    typed = "-n 2 --seed 3 --temperature .5 --top-p .8 --max-new-tokens 9 --token-budget 30 --batch-size 4"
    switches = (
        "--strength .5 --no-keep-attributes --no-artists --allow-faults --banned-term a --banned-term b --style ink"
    )
    assert RefineOptions(**vars(parser.parse_args([*typed.split(), *switches.split()]))) == RefineOptions(
        2, 3, 0.5, 0.8, 9, 30, ["a", "b"], 4, ["ink"], False, True, True, 0.5
    )


def test_bounds_in_words() -> None:
    check_number("x", 10**400, Bounds())
    for bounds, good, bad, words in (
        (Bounds(1), 1, 0.9, "a number of at least 1"),
        (Bounds(0, 1), 1, 1.1, "a number from 0 to 1"),
        (Bounds(0, 1, exclusive=True), 0.1, 0, "a number above 0 and at most 1"),
        (Bounds(maximum=3), -9, 4, "a number of at most 3"),
        (Bounds(), -9.5, float("inf"), "a number"),
    ):
        check_number("x", good, bounds)
        with pytest.raises(InputError, match=f"^x: expected {words}, got {bad}$"):
            check_number("x", bad, bounds)


def test_checking_options_loads_neither_torch_nor_the_hub() -> None:
    code = (
        "import sys, prip.options, prip.text.prompts; prip.options.RefineOptions(styles=['ink']);"
        "print(sorted({'torch', 'transformers', 'tokenizers', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


SNIPPET = """
from collections.abc import Sequence
from prip import Refiner, refine
from prip.options import RefineOptions

def check(refiner: Refiner, count: int, prompts: Sequence[str], options: RefineOptions) -> None:
    reveal_type(refine("a cat"))
    reveal_type(refine(["a cat"], seed=1, device="cpu"))
    reveal_type(refine("a cat", num_alternatives=4))
    reveal_type(refiner.refine("a cat", temperature=1.0))
    reveal_type(refiner.refine(prompts))
    reveal_type(refiner.refine(prompts, num_alternatives=2))
    reveal_type(refiner.refine("a cat", num_alternatives=count))
    reveal_type(refiner.refine("a cat", options))
    refine("a cat", temprature=1.0)
    refiner.refine("a cat", seed="one")
"""
# Without the annotations of torch and transformers, which take minutes to read and which refine's types do not need.
MYPY_CONFIG = """
[mypy]
ignore_missing_imports = true
[mypy-torch.*,transformers.*,numpy.*]
follow_imports = skip
"""
REVEALED = ["str", "list[str]", "list[str]", "str", "list[str]", "list[list[str]]"]


def test_type_checkers_know_what_refine_returns(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY_CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", config, tmp_path / "snippet.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line.partition(": ")[2].replace("builtins.", "") for line in result.stdout.splitlines()]
    either = "str | list[str] | list[list[str]]"
    wanted = [f'note: Revealed type is "{kind}"' for kind in (*REVEALED, either, either)]
    assert [line for line in lines if line.startswith("note: Revealed")] == wanted, result.stdout
    refused = ("error: No overload variant", 'error: Argument "seed"')
    assert sum(line.startswith(refused) for line in lines) == 2, result.stdout
