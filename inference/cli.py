"""The command `prip`; each module of commands/ adds a subcommand."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prip.command_line import Parser, ends_with_its_reader, printed_warnings
from prip.errors import PripError, broken_packages

from .commands import annotate, compare, demo, evaluate, install, refine, serve

COMMANDS = (refine, compare, demo, serve, install, evaluate, annotate)

EXAMPLES = """examples:
  prip refine "a cat"
  prip refine "a cat" "a dog on the beach" -n 4 --seed 1
  prip compare "a cat" -o cat.png
  prip demo
  prip serve --port 8000
  prip install comfyui ~/ComfyUI
  prip evaluate --config miniature --out evaluation
  prip annotate runs/evaluation --refiners none rl
  prip refine --help
"""


def build_parser() -> Parser:
    """Return the parser of `prip` with all subcommands."""
    parser = Parser(
        prog="prip",
        description="Prompt Refinement with Image Pivot: turns plain prompts into prompts that image models prefer.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run `prip` and return the exit code.

    0, 2 after a user error, which is printed in one line on stderr, or 130 when interrupted.
    """
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    if chosen.version:
        from importlib.metadata import version

        print(f"prip {version('prip')}")
        return 0
    if chosen.command is None:
        parser.print_help()
        return 2
    try:
        with printed_warnings(f"prip {chosen.command}"), broken_packages():
            chosen.run(chosen)
        return 0
    except PripError as error:
        print(f"prip {chosen.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if "to_continue" in chosen:
            print(f"\nprip {chosen.command}: interrupted; {chosen.to_continue}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
