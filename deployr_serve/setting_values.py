"""Values that several groups of settings hold."""

from __future__ import annotations

from pathlib import Path
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


def existing_file(text: str) -> Path:
    """Give the path of a file that is there.

    Raises:
        ValueError: it is not.
    """
    path = Path(text)
    if not path.is_file():
        raise ValueError("expected a file that can be read")
    return path


def yes_or_no(text: str) -> bool:
    """Give what 1 and 0 stand for.

    Raises:
        ValueError: neither.
    """
    if text not in {"0", "1"}:
        raise ValueError("expected 0 or 1")
    return text == "1"
