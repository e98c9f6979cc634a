"""What is looked at, as it stands in the page's address: a link shows the next person the same figures.

No address holds anything of a person: cohorts are categories, and a packet's id is a keyed hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import pandas as pd

from deployr_dash.panels.panel import Window
from deployr_dash.panels.people import PROPERTIES

EVERYBODY = "everybody"
ALL_VERSIONS = "all versions"
_COHORT = {called.replace(" ", "-"): column for column, called in PROPERTIES.items()}
"""Names in the address, and the columns that they choose by."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What was chosen. ``first`` and ``last``: days of UTC, both included; None is as far as there are packets.

    ``version``: of the model; None is all. ``cohort``: by column of packets, the category. ``only_ripe``: the maturity
    switch of labels.
    """

    first: date | None = None
    last: date | None = None
    version: str | None = None
    cohort: Mapping[str, str] = field(default_factory=dict)
    only_ripe: bool = True


def filters_of(query: Mapping[str, str]) -> Filters:
    """Read an address's query; what cannot be read is passed over, as if it were not there."""
    first, last = (_day(query.get(name, "")) for name in ("from", "to"))
    if first is not None and last is not None and last < first:
        first, last = last, first
    return Filters(
        first=first,
        last=last,
        version=query.get("version") or None,
        cohort={column: query[name] for name, column in _COHORT.items() if query.get(name)},
        only_ripe=query.get("labels") != "all",
    )


def query_of(filters: Filters) -> dict[str, str]:
    """Write filters as an address's query; what is not chosen is left out."""
    query = {
        "from": "" if filters.first is None else filters.first.isoformat(),
        "to": "" if filters.last is None else filters.last.isoformat(),
        "version": filters.version or "",
        "labels": "" if filters.only_ripe else "all",
        **{name: filters.cohort.get(column, "") for name, column in _COHORT.items()},
    }
    return {name: value for name, value in query.items() if value}


def window_of(filters: Filters, *, first_day: date, last_day: date) -> Window:
    """Give the stretch that was chosen, out of the days that have packets, both included."""
    first, last = filters.first or first_day, filters.last or last_day
    if last < first:
        first, last = last, first
    return Window(start=_midnight(first), end=_midnight(last + timedelta(days=1)))


def chosen(packets: pd.DataFrame, filters: Filters) -> pd.DataFrame:
    """Give the packets of the version and the cohort that were chosen, of any time."""
    kept = pd.Series(True, index=packets.index)
    if filters.version is not None:
        kept &= (packets["version"] == filters.version).fillna(False).astype(bool)
    for column, category in filters.cohort.items():
        kept &= (packets[column] == category).fillna(False).astype(bool)
    return packets.loc[kept].reset_index(drop=True)


def within(packets: pd.DataFrame, window: Window) -> pd.DataFrame:
    """Give the packets that were received in the window."""
    at = packets["received_at"]
    kept = (at >= pd.Timestamp(window.start)) & (at < pd.Timestamp(window.end))
    return packets.loc[kept].reset_index(drop=True)


def before(window: Window) -> Window:
    """Give the window of the same length that ends where this one starts."""
    return Window(start=window.start - (window.end - window.start), end=window.start)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
