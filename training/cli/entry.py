"""The command prip-train, where the extra `train` may be missing."""

from __future__ import annotations

import sys

from prip.errors import MissingExtraError, require

from .stages import top_parser


def main() -> int:
    """Runs `prip-train`; returns its exit status, 1 where a package that it needs is not installed.

    What stages there are, it tells without any.
    """
    name = top_parser().parse_args(sys.argv[1:2]).stage
    try:
        for module in ("docstring_parser", "jsonargparse", "yaml"):
            require(module, "train")
    except MissingExtraError as error:
        print(f"prip-train {name}: error: {error}", file=sys.stderr)
        return 1
    from .command import main as run

    return run()
