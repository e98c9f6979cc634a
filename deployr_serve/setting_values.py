"""Values that several groups of settings hold."""

from __future__ import annotations

from urllib.parse import urlsplit


def plain_url(text: str) -> str:
    """Give an http or https URL back as it is.

    Raises:
        ValueError: it is none, or carries a user name, a query or a fragment.
    """
    expected = "expected an http or https URL without user name, query or fragment"
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if not whole or "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(expected)
    return text
