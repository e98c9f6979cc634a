"""Numbers as people read them."""

from __future__ import annotations

_NARROW = "\u00a0"
_MINUS = "\u2212"


def number(value: float, *, digits: int = 3) -> str:
    """Write a number with so many digits after the point, and a true minus sign; never ``-0.000``."""
    written = f"{value:.{digits}f}"
    if float(written) == 0.0:
        written = written.lstrip("-")
    return written.replace("-", _MINUS)


def percent(share: float) -> str:
    """Write a share as per cent with one digit: ``12.3 %``."""
    return f"{number(100 * share, digits=1)}{_NARROW}%"


def count(value: int) -> str:
    """Write a count with its thousands apart: ``14,000``."""
    return f"{value:,}"


def of(number_of: int, one: str, many: str = "") -> str:
    """Write a count with its noun: ``1 patient``, ``2 patients``."""
    return f"{count(number_of)} {one if number_of == 1 else many or one + 's'}"
