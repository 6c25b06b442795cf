"""What other libraries say when they are merely imported, kept from those who use the commands."""

from __future__ import annotations

import logging

NOISY = ("torchao", "torch.utils._pytree")
"""Where torchao is installed, transformers imports it, and it warns of kernels that nobody has asked for."""


def hush_imports() -> None:
    """Let these loggers tell errors alone. For commands: a library leaves its user's logging as it is."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
