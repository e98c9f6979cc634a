"""A note as the terms that are counted: one reading, in training as in service."""

from __future__ import annotations

import re
import unicodedata

_TERM = re.compile(r"[^\W\d_]{2,}")


def terms_of(text: str) -> list[str]:
    """Give the words of a text in their order: runs of at least two letters, small, in their Unicode normal form.

    Digits are in no term, so that no number, date or record number gets into a vocabulary.
    """
    return _TERM.findall(unicodedata.normalize("NFKC", text).casefold())
