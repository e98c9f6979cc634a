"""A trial from look to look: an interval that holds at every one of them, and the bound of those that were planned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deployr_core.bootstrap import NotMeasurable
from deployr_core.monitoring.clustered import Effect
from deployr_core.monitoring.effects import intention_to_treat
from deployr_core.monitoring.sequential import FEWEST_CLUSTERS, Look, always_valid, planned_look, spending_bounds
from deployr_dash.panels.effects import difference_axis
from deployr_dash.panels.panel import NamedTable, Panel, View, posix
from deployr_dash.panels.trial_rows import Arms, arms_of, cut_off, difference, of_trial, who_is_independent
from deployr_dash.planned import PlannedTrial
from deployr_plots.figures import Axis, Band, Figure, Kind, Level, Points, Role, numbers
from deployr_plots.tables import Table
from deployr_plots.words import number, percent

_LOOKS = 24
"""Days at which the running effect is drawn; the interval holds at all others, too."""
_NEVER = 8.0
"""What `spending_bounds` says where a look may as good as never stop."""


def running_effect(view: View) -> Panel:
    """Show the trial as it went on: the interval that holds at every look, and the bound of planned looks."""
    name, title = "sequential", "The trial from look to look"
    planned = view.planned_trial
    if of_trial(view).empty:
        return Panel(name=name, title=title, missing="No trial runs in this window.")
    if planned is None:
        return Panel(
            name=name,
            title=title,
            missing="An interval that holds at every look has to know before the first one what the trial was planned"
            " for. Put `trial` into the model's monitoring plan (docs/dashboard.md).",
        )
    if (why := cut_off(view)) is not None:
        return Panel(name=name, title=title, missing=why)
    try:
        arms = arms_of(view)
    except NotMeasurable as error:
        return Panel(name=name, title=title, missing=f"The effect cannot be measured yet: {error}.")
    looks = _looks(view, arms, planned)
    if not looks:
        return Panel(
            name=name,
            title=title,
            missing="Outcomes of either arm are too few for a first look: at least two units each, that differ.",
        )
    last, boundary = looks[-1], _boundary(looks, planned)
    words = difference(view, last.valid.value, last.valid.low, last.valid.high)
    if not math.isfinite(last.valid.low):
        sentence = f"Under {FEWEST_CLUSTERS} clusters there is no interval that holds at every look."
    elif last.valid.stop:
        sentence = f"At the last look {words}: an effect is shown, however often anybody looked."
    else:
        sentence = f"At the last look {words}: neither an effect nor its absence is shown."
    past = [each for each in boundary if each.look is not None and each.look.stop]
    return Panel(
        name=name,
        title=title,
        said=(
            sentence,
            f"{percent(last.share)} of the planned information is there."
            + (
                f" The bound was passed at the look planned for {percent(past[0].planned)}."
                if past
                else " No planned look has passed its bound."
            ),
        ),
        figures=(_over_time(view, looks), _against_bound(looks, boundary)),
        tables=(
            NamedTable(
                caption="The planned looks",
                table=Table(
                    columns=("planned at", "reached on", "share then", "|z|", "bound", "difference, repeated interval"),
                    rows=tuple(_line(view, each) for each in boundary),
                ),
            ),
        ),
        notes=(
            "The band is the always-valid interval: it holds at every look at once (95 %), however many there are, and"
            " decides where nobody kept to a plan; those of the first looks would not fit in. Each day counts the"
            " outcomes that were ripe by then, as they are known today.",
            "Bound: alpha spending as O'Brien and Fleming's, 5 % two-sided over the planned looks; it holds only where"
            " these looks, and no others, decide. Information is the inverse of the variance, against that of a"
            f" standard error of {number(planned.standard_error, digits=4)}: a difference of"
            f" {number(planned.detectable, digits=3)} found in 4 of 5 trials.",
            who_is_independent(arms.packets, last.effect.clusters),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _AtLook:
    """The effect of all outcomes that were ripe by ``at``, POSIX seconds; ``share``: of the planned information."""

    at: float
    effect: Effect
    valid: Look
    share: float


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A planned look: its share and its bound, and where it was reached what it found."""

    planned: float
    share: float
    bound: float
    at: float | None = None
    z: float | None = None
    look: Look | None = None


def _looks(view: View, arms: Arms, planned: PlannedTrial) -> list[_AtLook]:
    ripe = posix(arms.packets["label_ripe_at"])
    ready = np.where(np.isnan(ripe), posix(arms.packets["received_at"]), ripe)
    begins, ends = view.window.start.timestamp(), min(view.window.end, view.now).timestamp()
    # A day on which a label is ripe may lie behind the window's end: then it counts at the last look.
    ready = np.minimum(ready, ends)
    days = np.unique(np.round(np.linspace(begins, ends, _LOOKS + 1)[1:]))
    found = []
    for day in days:
        known = ready <= day
        try:
            compared = intention_to_treat(arms.outcomes[known], arms.treated[known], arms.clusters[known])
        except NotMeasurable:
            continue
        effect_then = compared.effect
        found.append(
            _AtLook(
                at=float(day),
                effect=effect_then,
                valid=always_valid(effect_then, planned_standard_error=planned.standard_error),
                share=(planned.standard_error / effect_then.standard_error) ** 2,
            )
        )
    return found


def _boundary(looks: Sequence[_AtLook], planned: PlannedTrial) -> list[_Planned]:
    """Give each planned look's bound: of those that were reached at the share that there was then."""
    reached: list[tuple[float, float, _AtLook]] = []
    for wanted in planned.looks:
        first = next((each for each in looks if each.share >= wanted), None)
        share = None if first is None else min(1.0, first.share)
        if first is None or share is None or (reached and share <= reached[-1][1]):
            break
        reached.append((wanted, share, first))
    latest = reached[-1][1] if reached else 0.0
    ahead = [wanted for wanted in planned.looks[len(reached) :] if wanted > latest]
    shares = [*(share for _, share, _ in reached), *ahead]
    if not shares:
        return []
    bounds = spending_bounds(shares).tolist()
    done = [
        _Planned(
            planned=wanted,
            share=share,
            bound=bound,
            at=each.at,
            z=abs(each.effect.value) / each.effect.standard_error,
            look=planned_look(each.effect, bound),
        )
        for (wanted, share, each), bound in zip(reached, bounds, strict=False)
    ]
    return done + [
        _Planned(planned=wanted, share=wanted, bound=bound)
        for wanted, bound in zip(ahead, bounds[len(reached) :], strict=True)
    ]


def _line(view: View, each: _Planned) -> tuple[str | float | None, ...]:
    if each.look is None or each.at is None or each.z is None:
        return percent(each.planned), "not yet", None, None, round(each.bound, 2), ""
    return (
        percent(each.planned),
        f"{pd.Timestamp(each.at, unit='s'):%Y-%m-%d}",
        percent(each.share),
        round(each.z, 2),
        round(each.bound, 2),
        difference(view, each.look.value, each.look.low, each.look.high) + (": stop" if each.look.stop else ""),
    )


def _over_time(view: View, looks: Sequence[_AtLook]) -> Figure:
    bounded = [each for each in looks if math.isfinite(each.valid.low)]
    # The first looks are so uncertain that on their scale nothing else could be seen.
    later = bounded[len(bounded) // 3 :]
    axis = difference_axis(view, [end for each in later for end in (each.valid.low, each.valid.high)] or [0.1])
    reach = axis.high or math.inf
    banded = [each for each in bounded if max(abs(each.valid.low), abs(each.valid.high)) <= reach]
    drawn = [each for each in looks if abs(each.effect.value) <= reach]
    told = "; ".join(
        f"{pd.Timestamp(each.at, unit='s'):%Y-%m-%d}:"
        f" {difference(view, each.valid.value, each.valid.low, each.valid.high)}"
        for each in bounded[:: max(1, len(bounded) // 6)]
    )
    return Figure(
        name="running-effect",
        title="Difference of the arms, from look to look",
        told=f"{told or 'No interval yet'}.",
        x=Axis(
            name="Day of the look (UTC)",
            kind=Kind.TIME,
            low=view.window.start.timestamp(),
            high=min(view.window.end, view.now).timestamp(),
        ),
        y=axis,
        marks=(
            Level(name="no effect", at=0.0),
            Band(
                name="always-valid interval",
                x=numbers(each.at for each in banded),
                low=numbers(each.valid.low for each in banded),
                high=numbers(each.valid.high for each in banded),
            ),
            Points(
                name="difference",
                x=numbers(each.at for each in drawn),
                y=numbers(each.effect.value for each in drawn),
                joined=True,
            ),
        ),
        width=620,
        height=320,
    )


def _against_bound(looks: Sequence[_AtLook], boundary: Sequence[_Planned]) -> Figure:
    path = [(each.share, abs(each.effect.value) / each.effect.standard_error) for each in looks]
    # Only what grows is a path; where the estimate of the variance fell back, it is not drawn backwards.
    grown = [point for place, point in enumerate(path) if point[0] >= max(share for share, _ in path[: place + 1])]
    far = max([1.0, *(share for share, _ in grown)])
    top = max([3.0, *(z for _, z in grown), *(each.bound for each in boundary if each.bound < _NEVER)])
    return Figure(
        name="spending-bound",
        title="Against the bound of the planned looks",
        told="; ".join(
            f"planned at {percent(each.planned)}: bound {number(each.bound, digits=2)}"
            + (f", reached {number(each.z, digits=2)}" if each.z is not None else ", not reached yet")
            for each in boundary
        )
        + ".",
        x=Axis(name="Share of the planned information", kind=Kind.PERCENT, low=0.0, high=1.05 * far),
        y=Axis(name="Difference in standard errors, |z|", low=0.0, high=1.1 * top),
        marks=(
            Points(
                name="the trial so far", x=numbers(x for x, _ in grown), y=numbers(y for _, y in grown), joined=True
            ),
            Points(
                name="bound: at or past it, stop",
                x=numbers(each.share for each in boundary if each.bound < _NEVER),
                y=numbers(each.bound for each in boundary if each.bound < _NEVER),
                joined=True,
                role=Role.CONTRAST,
            ),
        ),
        width=460,
        height=320,
    )
