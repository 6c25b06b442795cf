"""What other packages say when they are merely imported, kept from those who use this one.

transformers, accelerate and diffusers import torchao and DeepSpeed wherever they are installed, and these then tell of
kernels and devices that nobody has asked for.
"""

from __future__ import annotations

import logging

LINES = {
    "torchao": ("Failed to load ",),
    "torchao.kernel.intmm": ("Warning: Detected no triton",),
    "torch.utils._pytree": ("%s is an Enum subclass and is now natively supported by torch.compile",),
    "diffusers.quantizers.torchao.torchao_quantizer": ("Unable to import `torchao` Tensor objects.",),
    "DeepSpeed": ("Setting accelerator to CPU.",),
}
"""Of each logger, how the warnings begin that are left out; it says all else as before."""


def hush_imports() -> None:
    """Leave these warnings out, and no others: a library leaves its user's logging as it is."""
    for name, beginnings in LINES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Without) for one in logger.filters):
            logger.addFilter(_Without(beginnings))


class _Without(logging.Filter):
    """Lets all pass but warnings that begin so."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not str(record.msg).startswith(self.beginnings)
