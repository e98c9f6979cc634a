"""What a benchmark gives."""

from __future__ import annotations

import msgspec


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside its baseline of the same run. ``ratio`` is value over baseline; None where there is none."""

    name: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    goal: str
    met: bool | None


def against(name: str, value: float, baseline: float, *, unit: str, at_most: float) -> Measured:
    """Give a figure whose goal is a ratio of at most that."""
    ratio = value / baseline
    return Measured(
        name=name,
        value=round(value, 3),
        unit=unit,
        baseline=round(baseline, 3),
        ratio=round(ratio, 3),
        goal=f"ratio <= {at_most:g}",
        met=ratio <= at_most,
    )


def faster(name: str, value: float, baseline: float, *, at_least: float, unit: str = "ms") -> Measured:
    """Give a figure whose goal is to be at least so many times smaller than its baseline."""
    return msgspec.structs.replace(
        against(name, value, baseline, unit=unit, at_most=1 / at_least), goal=f"{at_least:g}x less"
    )
