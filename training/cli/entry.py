"""Entry point of prip-train, which runs without the extra `train` to say that it is missing."""

from __future__ import annotations

import sys

from prip.command_line import ends_with_its_reader
from prip.errors import MissingExtraError, require

from .stages import top_parser


@ends_with_its_reader
def main() -> int:
    """Run `prip-train` and return its exit status, 1 if a package of the extra `train` is missing."""
    name = top_parser().parse_args(sys.argv[1:2]).stage
    try:
        for module in ("docstring_parser", "jsonargparse", "yaml"):
            require(module, "train")
    except MissingExtraError as error:
        print(f"prip-train {name}: error: {error}", file=sys.stderr)
        return 1
    from .command import main as run

    return run()
