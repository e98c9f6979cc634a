"""From a score to the number that an EMR takes: rounded, rescaled, or packed with the alert into one decimal."""

from __future__ import annotations

import math
import re

_PACKED = re.compile(r"([01])\.(0\d{3}|1000)\Z")


class ScoreUnusable(ValueError):
    """Not a number that may be shown: none at all, or of a type or value that must have come from a fault."""


def checked_number(score: object) -> float:
    """Give a score back that may leave this app.

    Raises:
        ScoreUnusable: it is no Python float (numpy's are no JSON, and a bool or a text is no score); it is infinite or
            not a number; or it is -0.0, which some EMRs show with its sign.
    """
    if type(score) is not float:
        raise ScoreUnusable("expected the score as a float")
    if not math.isfinite(score):
        raise ScoreUnusable("expected a finite score")
    if score == 0.0 and math.copysign(1.0, score) < 0.0:
        raise ScoreUnusable("expected 0.0 without a sign")
    return score


def checked_probability(score: object) -> float:
    """Give a probability back that may leave this app.

    Raises:
        ScoreUnusable: as for `checked_number`, or outside [0, 1].
    """
    number = checked_number(score)
    if not 0.0 <= number <= 1.0:
        raise ScoreUnusable("expected a probability from 0 to 1")
    return number


def percent(score: object) -> float:
    """Put a probability on the scale of 0 to 100.

    Raises:
        ScoreUnusable: see `checked_probability`.
    """
    return checked_probability(score) * 100


def written(number: object, *, decimals: int = 2, padded: bool = False) -> str:
    """Write a number to so many decimals, without an exponent, trailing zeros or a lone sign: 12.50 is ``12.5``.

    ``padded`` leaves the zeros at its end, as in ``12.50``.

    Halfway between two it goes to the nearer of the float's true value, which is rarely a true half; a true one goes
    to the even digit.

    Raises:
        ScoreUnusable: see `checked_number`.
    """
    text = f"{checked_number(number):.{decimals}f}"
    # What rounds to nothing has no sign.
    text = text.removeprefix("-") if not text.strip("-0.") else text
    return text.rstrip("0").rstrip(".") if "." in text and not padded else text


def packed_alert(score: object, *, alert: bool) -> str:
    """Pack the alert and the score into one decimal, ``alert.score``, for EMRs that take but one number.

    Before the point stands the alert, 1 or 0; behind it the score in thousandths, always four digits: an alert at
    0.873 is ``1.0873``, none at 0.05 is ``0.0050``, certainty with an alert ``1.1000``. Rules in the EMR compare with 1
    for the alert. The four digits keep a score of 1 from running into the alert. The alert is what was decided, and is
    never derived from the rounded score.

    Raises:
        ScoreUnusable: see `checked_probability`.
    """
    return f"{int(alert)}.{round(checked_probability(score) * 1000):04d}"


def unpacked_alert(packed: str) -> tuple[bool, float]:
    """Give the alert and the score, to the thousandth, of a packed decimal.

    Zeros at its end may be missing: an EMR that stores a number drops them.

    Raises:
        ScoreUnusable: it is no such decimal.
    """
    whole, _, fraction = packed.partition(".")
    found = _PACKED.match(f"{whole}.{fraction:0<4}")
    if found is None:
        raise ScoreUnusable("expected a packed alert, such as 1.0873")
    return found[1] == "1", int(found[2]) / 1000
