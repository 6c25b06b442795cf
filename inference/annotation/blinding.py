"""What an annotator sees, and what the browser is not told.

Order and sides are a function of (seed, annotator, question) alone, so that a restart changes nothing and more
questions do not move those that are there. The browser knows questions and images by tokens, keyed hashes that
nobody without the study's secret can compare with one another.
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
    """Returns an annotator's name as it is kept: lower case, single spaces. Raises InputError for what is no name."""
    kept = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if not kept or len(kept) > NAME_LENGTH or not re.fullmatch(r"[^\W_][\w .'@-]*", kept):
        raise InputError(
            f"annotator must be 1 to {NAME_LENGTH} letters, digits, spaces or any of _ . ' @ -, the first a letter "
            f"or digit; {name[: NAME_LENGTH + 1]!r} came"
        )
    return kept


def order_for(items: Sequence[Item], seed: int, annotator: str) -> list[Item]:
    """Returns the questions in the annotator's own order."""
    return sorted(items, key=lambda item: _digest("order", seed, annotator, item.key))


def sides_for(item: Item, seed: int, annotator: str) -> tuple[Picture, ...]:
    """Returns the item's pictures from left to right, as this annotator sees them."""
    swapped = _digest("sides", seed, annotator, item.key)[0] & 1
    return item.pictures[::-1] if swapped else item.pictures


def token(secret: bytes, *words: object) -> str:
    """Returns a name for `words` that tells nothing about them: 32 hexadecimal digits of a keyed hash."""
    return hmac.new(secret, _joined(words), hashlib.sha256).hexdigest()[:32]


def without_descriptions(png: bytes) -> bytes:
    """Returns a PNG file without its text, EXIF and time, which may tell the prompt; other content as it was."""
    if not png.startswith(_PNG_START):
        return png
    kept, place = [_PNG_START], len(_PNG_START)
    while place + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        chunk = png[place : place + length + 12]
        if chunk[4:8] not in _DESCRIBING:
            kept.append(chunk)
        place += len(chunk)
    return b"".join(kept)


def _digest(*words: object) -> bytes:
    return hashlib.sha256(_joined(words)).digest()


def _joined(words: Sequence[object]) -> bytes:
    return "\0".join(map(str, words)).encode()
