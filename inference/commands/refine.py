"""`prip refine`: refine prompts from the command line or from standard input."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from prip.control.negative import negative_prompt
from prip.errors import InputError, require
from prip.text_files import decode_text, lines_of

from .arguments import add_options, add_refiner, text

if TYPE_CHECKING:
    from prip.options import RefineOptions

EXAMPLES = """examples:
  prip refine "a cat"
  prip refine "a cat" "a dog on the beach"
  prip refine "a cat" -n 4 --seed 1
  prip refine "a cat" --temperature 0.8 --banned-term watercolor --banned-term "golden hour"
  prip refine "a cat" --style watercolor --no-artists --strength 0.5
  prip refine "a watercolor of a cat" --no-keep-attributes
  prip refine "a beach without people" --with-negative
  prip refine --json < prompts.txt
  prip refine "a cat" --model my-name/my-refiner --revision v1.0 --device cuda
"""


def add_parser(subparsers: Any) -> None:
    """Register `refine` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "refine",
        help="refine prompts",
        description="Refine prompts: your words stay, and modifiers that image models respond to are added.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "prompts",
        nargs="*",
        type=text,
        metavar="PROMPT",
        help="prompts; without any, or with -, lines are read from stdin (blank lines stay)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list of {user_prompt, refined_prompts}")
    parser.add_argument(
        "--with-negative",
        action="store_true",
        help="also suggest a negative prompt for each text: what it refuses, and flaws (in JSON: negative_prompts)",
    )
    add_options(parser)
    add_refiner(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Refine and print. Invalid input raises a PripError before torch is loaded."""
    from prip.options import RefineOptions, option_fields

    piped = arguments.prompts in ([], ["-"])
    if not arguments.prompts and sys.stdin.isatty():
        raise InputError('give a prompt, as in: prip refine "a cat"')
    lines = read_lines() if piped else arguments.prompts
    prompts = _checked(lines, piped)
    options = RefineOptions(**{option.name: getattr(arguments, option.name) for option in option_fields()})
    for line in lines if not piped else []:
        if os.path.isfile(line):
            how = f"prip refine < {shlex.quote(line)}"
            print(f"prip refine: note: {line} is a file; its lines are refined by: {how}", file=sys.stderr)
    if len(lines) > 1 and not piped and not any(" " in line for line in lines):
        how = shlex.join(["prip", "refine", " ".join(lines)])
        print(f"prip refine: note: each word is a prompt of its own; as one prompt: {how}", file=sys.stderr)
    refined = iter(_refine(prompts, arguments, options))
    results = [next(refined) if line.strip() else [line] for line in lines]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    pairs = list(zip(lines, results, strict=True))
    if arguments.json:
        records = [_record(line, texts, arguments.with_negative) for line, texts in pairs]
        print(json.dumps(records, ensure_ascii=False, indent=2))
    else:
        between = "\n\n" if arguments.num_alternatives > 1 else "\n"
        print(between.join("\n".join(_shown(text, arguments.with_negative) for text in texts) for texts in results))


def _record(user_prompt: str, texts: list[str], with_negative: bool) -> dict[str, object]:
    record: dict[str, object] = {"user_prompt": user_prompt, "refined_prompts": texts}
    if with_negative:
        record["negative_prompts"] = [negative_prompt(text) for text in texts]
    return record


def _shown(text: str, with_negative: bool) -> str:
    """Return a text, with its negative prompt on a second line as the webui writes it."""
    return f"{text}\nNegative prompt: {negative_prompt(text)}" if with_negative and text.strip() else text


def read_lines() -> list[str]:
    """Return the lines of standard input. Raises InputError if all are blank or it is not UTF-8."""
    lines = lines_of(decode_text(sys.stdin.buffer.read(), "standard input"))
    if not any(map(str.strip, lines)):
        raise InputError("standard input: expected at least one prompt, got only blank lines")
    return lines


def _checked(lines: list[str], piped: bool) -> list[str]:
    """Return the lines that are prompts: all of them, or from standard input those that are not blank."""
    from prip.text.prompts import check_user_prompt

    unit = "line" if piped else "prompt"
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() or not piped]
    return [check_user_prompt(line, f"{unit} {number}") for number, line in numbered]


def _refine(prompts: list[str], arguments: argparse.Namespace, options: RefineOptions) -> list[list[str]]:
    if options.strength == 0:
        return [[prompt] for prompt in prompts]

    from prip.loading.folders import refiner_folder

    folder = refiner_folder(arguments.model, arguments.revision)
    if arguments.quantization is not None:
        require("torchao", "quantize")

    from prip.refiner import Refiner

    refiner = Refiner.from_pretrained(
        folder, device=arguments.device, dtype=arguments.dtype, quantization=arguments.quantization
    )
    refined = refiner.refine(prompts, options)
    return [[texts] if isinstance(texts, str) else texts for texts in refined]
