"""Blinds annotators: order and sides of the questions, and tokens in place of names.

Order and sides depend on (seed, annotator, question) alone, so that a restart changes nothing and added questions do
not move the others. The browser knows questions and images by tokens: keyed hashes that nobody can compare without the
study's secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
import unicodedata
from collections.abc import Sequence

from prip.errors import InputError

from .items import Item, Picture

NAME_LENGTH = 40

_DESCRIBING = {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"}
_PNG_START = b"\x89PNG\r\n\x1a\n"


def check_annotator(name: str) -> str:
    """Return an annotator's name in lower case with single spaces. Raises InputError for an invalid name."""
    kept = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if not kept or len(kept) > NAME_LENGTH or not re.fullmatch(r"[^\W_][\w .'@-]*", kept):
        raise InputError(
            f"annotator: expected 1 to {NAME_LENGTH} letters, digits, spaces or any of _ . ' @ -, the first a letter "
            f"or digit, got {name[: NAME_LENGTH + 1]!r}"
        )
    return kept


def order_for(items: Sequence[Item], seed: int, annotator: str) -> list[Item]:
    """Return the questions in the annotator's order."""
    return sorted(items, key=lambda item: _digest("order", seed, annotator, item.key))


def sides_for(item: Item, seed: int, annotator: str) -> tuple[Picture, ...]:
    """Return the item's pictures from left to right, as this annotator sees them."""
    swapped = _digest("sides", seed, annotator, item.key)[0] & 1
    return item.pictures[::-1] if swapped else item.pictures


def token(secret: bytes, *words: object) -> str:
    """Return an opaque name for `words`: 32 hexadecimal digits of a keyed hash."""
    return hmac.new(secret, _joined(words), hashlib.sha256).hexdigest()[:32]


def without_descriptions(png: bytes) -> bytes:
    """Return a PNG file without its text, EXIF and time chunks, which may reveal the prompt."""
    if not png.startswith(_PNG_START):
        return png
    kept, offset = [_PNG_START], len(_PNG_START)
    while offset + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, offset)
        chunk = png[offset : offset + length + 12]
        if chunk[4:8] not in _DESCRIBING:
            kept.append(chunk)
        offset += len(chunk)
    return b"".join(kept)


def _digest(*words: object) -> bytes:
    return hashlib.sha256(_joined(words)).digest()


def _joined(words: Sequence[object]) -> bytes:
    return "\0".join(map(str, words)).encode()
