"""The command `prip`: each subcommand is registered by the `add_parser` of its own module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prip.command_line import Parser, told_warnings
from prip.errors import PripError

from .commands import (
    annotate as annotate_command,
)
from .commands import (
    compare as compare_command,
)
from .commands import (
    demo as demo_command,
)
from .commands import (
    evaluate as evaluate_command,
)
from .commands import (
    install as install_command,
)
from .commands import (
    refine as refine_command,
)
from .commands import (
    serve as serve_command,
)

COMMANDS = (
    refine_command,
    compare_command,
    demo_command,
    serve_command,
    install_command,
    evaluate_command,
    annotate_command,
)

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
    """Return the parser of `prip` with all its subcommands."""
    parser = Parser(
        prog="prip",
        description="Prompt refinement with image pivot: from a plain prompt to the one that an image model wants.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `prip`. Returns the exit code: 0, or 2 with one line on the error stream for what the caller can mend."""
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
        with told_warnings(f"prip {chosen.command}"):
            return chosen.run(chosen)
    except PripError as error:
        print(f"prip {chosen.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
