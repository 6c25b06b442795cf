"""User prompts to CLIP's token ids, from the merges that are installed with the package."""

from __future__ import annotations

import html
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import require
from ..text.clip_tokens import clip_tokenizer

START_TOKEN, END_TOKEN = 49406, 49407


def clean_text(text: str) -> str:
    """What openai/CLIP and open_clip do to a text first: mend its encoding and quotes (ftfy), resolve HTML entities."""
    mended = require("ftfy", "rewards").fix_text(text)
    return html.unescape(html.unescape(mended)).strip()


def clip_token_ids(texts: Sequence[str], length: int) -> Tensor:
    """Token ids, int64 (n, length): start, at most length - 2 of the text's own, end, and ends again as padding."""
    tokenizer = clip_tokenizer()
    ids = torch.full((len(texts), length), END_TOKEN)
    for row, text in enumerate(texts):
        own = tokenizer.encode(text, add_special_tokens=False).ids[: length - 2]
        ids[row, : len(own) + 1] = torch.tensor([START_TOKEN, *own])
    return ids
