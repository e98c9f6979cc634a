"""All models at a glance, from daily counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from deployr_core.bundle import Estimate as Stated
from deployr_core.bundle import Manifest
from deployr_dash.panels.panel import Window
from deployr_dash.readings import Overview
from deployr_dash.sketches import histogram, quantiles
from deployr_plots.figures import Axis, Bars, Figure, Kind, numbers, slug
from deployr_plots.words import count, number, of, percent


@dataclass(frozen=True, kw_only=True)
class Glance:
    """One model's line. ``auroc``: of all labels in the window, from scores in bins of .02; None without both classes.

    ``prevalence``: of one outcome that is or is not; None of classes, of several labels, and of numbers.
    ``stated``: what the newest bundle at hand says of held-out rows. ``watch``: what somebody should look at.
    """

    model_id: str
    versions: int
    packets: int
    scored_share: float | None
    p95_ms: float | None
    labels: int
    prevalence: float | None
    auroc: float | None
    stated: Stated | None
    last_at: datetime | None
    watch: tuple[str, ...]
    volume: Figure

    @property
    def most_a_day(self) -> int:
        """Give the packets of the busiest day."""
        return max(int(height) for bars in self.volume.marks if isinstance(bars, Bars) for height in bars.heights)


COUNTED = ("packets", "scored", "95 % answered in", "labels", "with the outcome", "AUROC", "on held-out rows")
"""What `counted` gives."""
NOTES = (
    "AUROC here is of all labels there are, ripe or not, from scores in steps of .02, without an interval: for a look"
    " around. A model’s own part measures it properly. Models are looked at where over 2 % failed, deliveries were"
    " given up, nothing came for a day, or AUROC is below the interval of its held-out rows.",
)


def in_short(lines: Sequence[Glance]) -> str:
    """Say how many models there are, and how many somebody should look at."""
    watched = sum(bool(line.watch) for line in lines)
    return f"{of(len(lines), 'model')}, {f'{count(watched)} to look at' if watched else 'nothing stands out'}."


def counted(line: Glance) -> tuple[str, ...]:
    """Give a line's figures in words, a dash where there is none."""

    def shown(value: float | None, words: str) -> str:
        return "–" if value is None else words

    stated = line.stated
    return (
        count(line.packets),
        shown(line.scored_share, percent(line.scored_share or 0)),
        shown(line.p95_ms, f"{line.p95_ms or 0:,.0f} ms"),
        count(line.labels),
        shown(line.prevalence, percent(line.prevalence or 0)),
        shown(line.auroc, number(line.auroc or 0)),
        "–" if stated is None else f"{number(stated.value)} ({number(stated.low)} to {number(stated.high)})",
    )


def glances(overview: Overview, window: Window, manifests: Mapping[str, Manifest], *, now: datetime) -> list[Glance]:
    """Give a line for each model that has packets in the window, in order of name.

    Args:
        overview: the window's daily counts.
        window: whole days.
        manifests: by model, of the newest bundle at hand.
        now: when the extract was made.
    """
    daily, tallies = overview.daily, overview.tallies
    return [
        _glance(
            str(model_id),
            some,
            tallies.loc[(tallies["model_id"] == model_id).to_numpy(dtype=bool)],
            window,
            manifests.get(str(model_id)),
            now=now,
        )
        for model_id, some in sorted(daily.groupby("model_id", observed=True), key=lambda each: str(each[0]))
    ]


def _glance(
    model_id: str,
    daily: pd.DataFrame,
    tallies: pd.DataFrame,
    window: Window,
    manifest: Manifest | None,
    *,
    now: datetime,
) -> Glance:
    packets, scored, observed = (int(daily[name].sum()) for name in ("packets", "scored", "observed"))
    failed, dead = (int(daily[name].sum()) for name in ("failed", "deliveries_dead"))
    last = daily["last_at"].max()
    took = tallies.loc[(tallies["what"] == "latency_ms").to_numpy(dtype=bool)]
    p95 = float(quantiles(took["bucket"].to_numpy(np.int64), took["n"].to_numpy(np.int64), np.array([0.95]))[0])
    bins = [_bins(tallies, f"score_of_{outcome}") for outcome in ("positive", "negative")]
    positive, negative = (int(each.sum()) for each in bins)
    auroc = _auroc(*bins)
    # Where a replay moved the clock there are no times to answer, and its end is no silence.
    heard = pd.NaT if scored and math.isnan(p95) else last
    stated = None if manifest is None else manifest.evaluation.figures.get("auroc")
    return Glance(
        model_id=model_id,
        versions=int(daily["version"].nunique()),
        packets=packets,
        scored_share=scored / packets if packets else None,
        p95_ms=None if math.isnan(p95) else p95,
        labels=observed,
        prevalence=positive / (positive + negative) if positive + negative else None,
        auroc=auroc,
        stated=stated,
        last_at=None if pd.isna(last) else last.to_pydatetime(),
        watch=_watch(packets, failed, auroc, stated, dead, heard, now=now, window=window),
        volume=_volume(model_id, daily, window),
    )


def _watch(
    packets: int,
    failed: int,
    auroc: float | None,
    stated: Stated | None,
    dead: int,
    last: pd.Timestamp,
    *,
    now: datetime,
    window: Window,
) -> tuple[str, ...]:
    found = []
    if packets and failed / packets > 0.02:
        found.append(f"{percent(failed / packets)} failed")
    if dead:
        found.append(f"{count(dead)} deliveries given up")
    if auroc is not None and stated is not None and auroc < stated.low:
        found.append("AUROC below retrospective")
    if not pd.isna(last) and (silent := (min(now, window.end) - last.to_pydatetime()).total_seconds() / 3600) > 24:
        found.append(f"silent for {number(silent / 24, digits=1)} days")
    return tuple(found)


def _bins(tallies: pd.DataFrame, what: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    some = tallies.loc[(tallies["what"] == what).to_numpy(dtype=bool)]
    return histogram(some["bucket"].to_numpy(np.int64), some["n"].to_numpy(np.int64))


def _auroc(
    positive: np.ndarray[tuple[int], np.dtype[np.int64]], negative: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> float | None:
    """Give the chance that a positive row is in a higher bin than a negative one, the same bin counting half."""
    pairs = int(positive.sum()) * int(negative.sum())
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)


def _volume(model_id: str, daily: pd.DataFrame, window: Window) -> Figure:
    start = pd.Timestamp(window.start.date())
    places = ((pd.to_datetime(daily["day"]) - start) // pd.Timedelta(days=1)).to_numpy(np.int64)
    heights = np.bincount(places, weights=daily["packets"].to_numpy(np.float64), minlength=window.days)[: window.days]
    starts = window.start.timestamp() + 86_400.0 * np.arange(window.days + 1)
    return Figure(
        name=f"volume-{slug(model_id)}",
        title=f"Packets a day of {model_id}",
        told=f"{count(int(heights.sum()))} packets in {count(window.days)} days, at most {count(int(heights.max()))} a"
        " day.",
        x=Axis(name="Day (UTC)", kind=Kind.TIME, low=float(starts[0]), high=float(starts[-1])),
        y=Axis(name="Packets a day", low=0.0),
        marks=(Bars(name="", starts=numbers(starts[:-1]), ends=numbers(starts[1:]), heights=numbers(heights)),),
        width=200,
        height=44,
        is_small=True,
    )
