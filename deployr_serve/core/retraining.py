"""When a model is to be trained again: on its schedule, or because it drifts. It only says so; people deploy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from deployr_core.monitoring.alerting import Notice, What
from deployr_core.registry.journal import Action, Entry
from deployr_core.registry.run import Because
from deployr_serve.core.schedule import Schedule

DRIFT_RULE = "drift"
"""What the rule is called whose alarms open runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """Why a run is due; ``said`` goes into the journal."""

    because: Because
    said: str


def due(entries: Sequence[Entry], *, schedule: Schedule | None, notices: Iterable[Notice], now: datetime) -> Due | None:
    """Say why a run is due; None if none is, one waits to be trained, or nobody has ever registered one by hand.

    Args:
        entries: the model's journal.
        schedule: the config's; None has none.
        notices: what was told of this model's alerts lately; none where alarms are to open nothing.
        now: when it is.
    """
    registered = [entry.at for entry in entries if entry.action is Action.REGISTERED]
    if not registered or waiting(entries) is not None:
        return None
    last = max(entry.at for entry in entries if entry.action in {Action.REGISTERED, Action.OPENED})
    alarms = [each for each in notices if each.rule == DRIFT_RULE and each.what is What.BEGUN and each.at > last]
    if alarms:
        return Due(because=Because.DRIFT_ALARM, said=f"{Because.DRIFT_ALARM}: {alarms[0].key}, {alarms[0].at:%Y-%m-%d}")
    slot = None if schedule is None else next(schedule.back_from(now), None)
    if slot is not None and slot > last:
        return Due(because=Because.SCHEDULE, said=f"{Because.SCHEDULE}: due {slot:%Y-%m-%dT%H:%MZ}")
    return None


def waiting(entries: Sequence[Entry]) -> Entry | None:
    """Give the entry that opened the run that nobody has registered yet; None if there is none."""
    found = None
    for entry in entries:
        if entry.action is Action.REGISTERED:
            found = None
        elif entry.action is Action.OPENED and found is None:
            found = entry
    return found


def because_of(entry: Entry) -> Because:
    """Give why a run was opened, by what its entry says."""
    return next((each for each in Because if entry.why.startswith(f"{each}: ")), Because.BY_HAND)
