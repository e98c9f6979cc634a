"""The keys that kept facts are sealed with, as a site writes them down."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")
_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class SealingKeys:
    """The site's keys by id; ``newest`` seals."""

    newest: str
    keys: Mapping[str, bytes] = field(repr=False)


def read_sealing_keys(text: str) -> SealingKeys:
    """Read keys: each ``ID:KEY``, one a line or with commas between, the newest first; a key is 32 bytes in base64.

    Raises:
        ValueError: says what was expected; no key is repeated.
    """
    expected = "expected ID:KEY, one a line, the newest first; a key is 32 bytes in base64"
    keys: dict[str, bytes] = {}
    for line in re.split(r"[,\n]", text):
        key_id, _, encoded = line.strip().partition(":")
        if not key_id:
            continue
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(expected) from None
        if not _KEY_ID.match(key_id) or len(key) != _KEY_BYTES or key_id in keys:
            raise ValueError(f"{expected}; ids are letters, digits, hyphens, dots or underscores, each once")
        keys[key_id] = key
    if not keys:
        raise ValueError(expected)
    return SealingKeys(newest=next(iter(keys)), keys=keys)
