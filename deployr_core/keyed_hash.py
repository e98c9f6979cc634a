"""Ids that tell nothing: an HMAC of several texts under the site's secret."""

from __future__ import annotations

import hashlib
import hmac


def keyed_hash(key: bytes, *parts: str) -> str:
    """Give the HMAC-SHA256 of the parts, 64 hex digits; other parts give another one, wherever they are divided.

    Raises:
        ValueError: a key of under 16 bytes: short ids could be found by trying all.

    Source: RFC 2104.
    """
    if len(key) < 16:
        raise ValueError("expected a key of at least 16 bytes")
    # A length before each part, so that no two different inputs run together into one.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
