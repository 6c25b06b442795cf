"""Filter warnings that other packages log when they are merely imported.

transformers, accelerate and diffusers import torchao and DeepSpeed if they are installed, which then warn about missing
kernels and devices even if they are not used.
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
"""Logger -> prefixes of the warnings that are dropped; everything else is logged as usual."""


def hush_imports() -> None:
    """Drop the warnings in LINES, once per process; no other logging of the user is changed."""
    for name, prefixes in LINES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(existing, _Without) for existing in logger.filters):
            logger.addFilter(_Without(prefixes))


class _Without(logging.Filter):
    """Passes every record except warnings with one of the prefixes."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        super().__init__()
        self.prefixes = prefixes

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not str(record.msg).startswith(self.prefixes)
