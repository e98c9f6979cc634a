"""Values that several groups of settings hold."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit


def plain_url(text: str, *, query: bool = False) -> str:
    """Give an http or https URL back as it is; no message repeats it.

    ``query``: it may have one, as an address does that lets in whoever knows it.

    Raises:
        ValueError: it is none, or carries a user name, a query or a fragment.
    """
    expected = f"expected an http or https URL without user name{'' if query else ', query'} or fragment"
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    plain = text.isprintable() and not set(text) & ({" ", "#"} if query else {" ", "#", "?"})
    if not whole or "@" in parts.netloc or not plain:
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


def lines_of_pem(text: str) -> str:
    """Give a key with its line ends: where settings are one line each, as in Azure's portal, they stand as \\n."""
    return text.replace("\\n", "\n")


def yes_or_no(text: str) -> bool:
    """Give what 1 and 0 stand for.

    Raises:
        ValueError: neither.
    """
    if text not in {"0", "1"}:
        raise ValueError("expected 0 or 1")
    return text == "1"
