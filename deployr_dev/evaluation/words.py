"""Figures as people read them."""

from __future__ import annotations

from deployr_core.label_rules import LabelRule, horizon
from deployr_dev.evaluation.records import (
    AlertRateAtMost,
    Figure,
    Given,
    Measured,
    NotMeasured,
    SensitivityAtLeast,
    ThresholdChoice,
    TooSmall,
)
from deployr_plots.words import count, number, of, percent

__all__ = ["choice", "count", "figure", "known_within", "misjudgement", "number", "of", "percent"]

_NARROW = "\u00a0"


def figure(shown: Figure | TooSmall, *, as_percent: bool = False, digits: int = 3) -> str:
    """Write a figure with its interval, or why there is none."""
    match shown:
        case Measured(value=value, low=low, high=high):
            if as_percent:
                return f"{percent(value)} ({number(100 * low, digits=1)} to {percent(high)})"
            written = [number(each, digits=digits) for each in (value, low, high)]
            return f"{written[0]} ({written[1]} to {written[2]})"
        case NotMeasured(why=why):
            return f"not measurable: {why}"
        case TooSmall(why=why):
            return f"too small: {why}"


def misjudgement(gap: Figure) -> str | None:
    """Write how far the scores are off on the whole, such as ``too high by 3.6 (1.9 to 5.2) percentage points``.

    ``gap`` is the calibration in the large: above 0, the scores promise less than happens. None where its interval
    holds 0, or where it could not be measured.
    """
    if not isinstance(gap, Measured) or gap.low <= 0 <= gap.high:
        return None
    direction = "too low" if gap.low > 0 else "too high"
    size, nearest, farthest = (
        number(100 * each, digits=1) for each in (abs(gap.value), *sorted((abs(gap.low), abs(gap.high))))
    )
    return f"{direction} by {size} ({nearest} to {farthest}) percentage points"


def choice(chosen: ThresholdChoice) -> str:
    """Write how a threshold was come by."""
    match chosen:
        case Given():
            return "As given"
        case AlertRateAtMost(share=share):
            return f"Alert on at most {_whole(share)}"
        case SensitivityAtLeast(share=share):
            return f"Find at least {_whole(share)}"


def known_within(rule: LabelRule) -> str:
    """Write how long after the prediction the label is known at the latest."""
    longest = horizon(rule)
    return "the visit" if longest is None else f"{of(round(longest.total_seconds() / 3600), 'hour')} of the prediction"


def _whole(share: float) -> str:
    return f"{100 * share:g}{_NARROW}%"
