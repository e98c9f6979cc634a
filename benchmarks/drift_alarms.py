"""Drift alarms at their defaults: how late a drift is found, and how many alarms a year are false.

``python -m benchmarks.drift_alarms`` does it at the size of docs/drift-alarms.md, which takes an hour or more;
``make bench`` a short one. Seasons are put together by `benchmarks.drift_hospital`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_hospital import BEGIN, Model, Orders, joined, orders_of, season, trained
from benchmarks.drift_knobs import DRIFTS, Drifting
from benchmarks.measured import Measured
from deployr_core.monitoring.drift_alarm import RULE, AlarmRule, DriftLook, decided, drift_look
from deployr_core.monitoring.drift_reference import ReferencePeriod
from deployr_core.monitoring.served_rows import ServedRows
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Axis, Figure, Kind, Points, Role, numbers
from mock_emr.population.shift import InfrastructureShift

RESULTS = Path(__file__).parent / "drift_alarms.json"
PICTURE = Path(__file__).parents[1] / "docs" / "drift-alarms.svg"
REFERENCE_DAYS = 56
QUIET_DAYS = 28
"""From the end of the reference period to the onset."""
FOLLOWED_DAYS = 90
YEAR = 365
RIPE_DAYS = 3
"""After so many days a label of the task is due; until then it does not count."""
WARDS: Mapping[str, float] = {"small": 20.0, "large": 100.0}
"""Requests a day."""
SAME_ALARM_DAYS = 7
"""An alarm that comes back within so many days is the same one."""
_PATIENTS, _FEW_PATIENTS = 600, 200
_CERTAIN = 1e-9


def looks_of(rows: ServedRows, days: Sequence[int]) -> Iterator[DriftLook]:
    """Give the looks at the end of these days of a season, whose first weeks are the reference period."""
    reference = ReferencePeriod.of(
        _with_ripe_labels(rows.between(BEGIN, BEGIN + timedelta(days=REFERENCE_DAYS))),
        model_id="m",
        version="1",
        bundle_sha256="0" * 64,
    )
    for day in days:
        until = BEGIN + timedelta(days=day)
        longest = rows.between(until - timedelta(days=max(RULE.windows) + RIPE_DAYS), until)
        yield drift_look(reference, _with_ripe_labels(longest))


def _with_ripe_labels(rows: ServedRows) -> ServedRows:
    ripe = rows.at < rows.until.timestamp() - RIPE_DAYS * 86_400
    return replace(rows, labels=np.where(ripe, rows.labels, np.nan))


def alarms(looks: Sequence[DriftLook], *, rule: AlarmRule = RULE) -> NDArray[np.bool_]:
    """Give on which looks there is an alarm."""
    return np.array(
        [decided(looks[max(0, place + 1 - rule.looks) : place + 1], rule=rule).raised for place in range(len(looks))],
        dtype=np.bool_,
    )


def false_alarms(raised: NDArray[np.bool_]) -> int:
    """Count alarms, those that come back within a week as one."""
    days = np.flatnonzero(raised)
    return int(days.size > 0) + int((np.diff(days) > SAME_ALARM_DAYS).sum())


def year_at_rest(rest: Orders, *, a_day: float, seed: int) -> list[DriftLook]:
    """Give a year of daily looks at a ward where nothing drifts."""
    rng = np.random.default_rng([1, seed, int(a_day)])
    rows = season(rng, rest, None, a_day=a_day, days=REFERENCE_DAYS + YEAR, onset=0.0)
    return list(looks_of(rows, range(REFERENCE_DAYS + 1, REFERENCE_DAYS + YEAR + 1)))


def days_after_onset(
    rest: Orders, drifting: Drifting, shifted: Orders | None, *, a_day: float, seed: int
) -> list[DriftLook]:
    """Give the daily looks from just before the onset on, until it is found beyond doubt, for 90 days at most."""
    onset = REFERENCE_DAYS + QUIET_DAYS
    rng = np.random.default_rng([2, seed, int(a_day)])
    rows = season(rng, rest, shifted, a_day=a_day, days=onset + FOLLOWED_DAYS, onset=float(onset))
    if drifting.kept is not None:
        late = rows.between(BEGIN + timedelta(days=onset), rows.until)
        early = rows.between(rows.since, BEGIN + timedelta(days=onset))
        rows = replace(joined(early, late.of(drifting.kept(rng, late))), until=late.until)
    found: list[DriftLook] = []
    for look in looks_of(rows, range(onset - RULE.looks + 2, onset + FOLLOWED_DAYS + 1)):
        found.append(look)
        if len(found) > RULE.looks and _is_certain(found[-RULE.looks :]):
            break
    return found


def _is_certain(looks: Sequence[DriftLook]) -> bool:
    return all(any(each.p is not None and each.p < _CERTAIN for each in look.kinds) for look in looks)


@dataclass(frozen=True, kw_only=True)
class Hospitals:
    """A folder with the model and the hospitals' orders, so that processes share them."""

    folder: Path
    patients: int

    def make(self, name: str, shift: InfrastructureShift) -> None:
        """Make a hospital; the model has to be there."""
        self._keep(name, orders_of(self.model, shift, patients=self.patients))

    def train(self) -> None:
        """Make the model."""
        self._keep("model", trained(patients=self.patients))

    @property
    def model(self) -> Model:
        """Give the model."""
        model: Model = _kept(self.folder / "model")
        return model

    @property
    def rest(self) -> Orders:
        """Give the hospital with all knobs at rest."""
        rest: Orders = _kept(self.folder / "rest")
        return rest

    def shifted(self, drifting: Drifting) -> Orders | None:
        """Give the hospital that a knob makes of it; None where only requests stay away."""
        if drifting.shift is not None:
            found: Orders = _kept(self.folder / str(DRIFTS.index(drifting)))
            return found
        return None if drifting.changed is None else drifting.changed(self.model, self.rest)

    def _keep(self, name: str, what: object) -> None:
        (self.folder / name).write_bytes(pickle.dumps(what))


@lru_cache(maxsize=4)
def _kept(file: Path) -> Any:
    return pickle.loads(file.read_bytes())  # noqa: S301 our own, of a moment ago


class AtRest(msgspec.Struct, frozen=True, kw_only=True):
    """False alarms of each simulated year of a ward of so many requests a day."""

    ward: str
    a_day: float
    alarms: tuple[int, ...]

    @property
    def a_year(self) -> float:
        """Give them a year."""
        return sum(self.alarms) / len(self.alarms)

    @property
    def interval(self) -> tuple[float, float]:
        """Give a 95 % interval, by years, which differ in reference periods; without any, 3 over years."""
        years = np.array(self.alarms, dtype=np.float64)
        if not years.any():
            return 0.0, 3.0 / years.size
        reach = 1.96 * float(years.std(ddof=1)) / math.sqrt(years.size)
        return max(0.0, self.a_year - reach), self.a_year + reach


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """How a drift was found. ``days``: from the onset to the alarm, of each repetition; None if not within 90.

    ``by``: the kind that was the clearest at that alarm, and how often.
    """

    knob: str
    size: str
    ward: str
    days: tuple[int | None, ...]
    by: Mapping[str, int]

    def quantile(self, share: float) -> int | None:
        """Give by how many days that share of the repetitions had an alarm; None: never."""
        place = math.ceil(share * len(self.days)) - 1
        return sorted(self.days, key=lambda each: math.inf if each is None else each)[place]

    @property
    def never(self) -> float:
        """Give the share without an alarm within 90 days."""
        return sum(each is None for each in self.days) / len(self.days)


class Operating(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured."""

    at_rest: tuple[AtRest, ...]
    found: tuple[Found, ...]


def rested(hospitals: Hospitals, ward: str, seed: int) -> int:
    """Count the false alarms of one year."""
    return false_alarms(alarms(year_at_rest(hospitals.rest, a_day=WARDS[ward], seed=seed)))


def sought(hospitals: Hospitals, index: int, ward: str, seed: int) -> tuple[int | None, str]:
    """Give after how many days one drift was found, and by what; None if it was not."""
    drifting = DRIFTS[index]
    looks = days_after_onset(
        hospitals.rest, drifting, hospitals.shifted(drifting), a_day=WARDS[ward], seed=1_000 * index + seed
    )
    raised = np.flatnonzero(alarms(looks)[RULE.looks - 1 :])
    if not raised.size:
        return None, ""
    day = int(raised[0]) + 1
    return day, decided(looks[: day + RULE.looks - 1]).kinds[0].value


def measured(
    folder: Path,
    *,
    repetitions: int,
    years: int,
    patients: int = _PATIENTS,
    drifts: Sequence[Drifting] = DRIFTS,
    wards: Sequence[str] = tuple(WARDS),
    pool: Executor | None = None,
) -> Operating:
    """Measure in processes of a pool, or in this one.

    Args:
        folder: gets the hospitals.
        repetitions: of each drift in each ward.
        years: at rest, of each ward.
        patients: of each hospital.
        drifts: of `DRIFTS`.
        wards: of `WARDS`.
        pool: where to work.
    """
    run = map if pool is None else pool.map
    hospitals = Hospitals(folder=folder, patients=patients)
    hospitals.train()
    made = {"rest": InfrastructureShift()} | {
        str(DRIFTS.index(each)): each.shift for each in drifts if each.shift is not None
    }
    list(run(hospitals.make, made, made.values()))
    at_rest = tuple(
        AtRest(ward=ward, a_day=WARDS[ward], alarms=tuple(run(partial(rested, hospitals, ward), range(years))))
        for ward in wards
    )
    found = []
    for each in drifts:
        for ward in wards:
            results = list(run(partial(sought, hospitals, DRIFTS.index(each), ward), range(repetitions)))
            days = tuple(day for day, _ in results)
            by = Counter(kind for _, kind in results if kind)
            found.append(Found(knob=each.knob, size=each.size, ward=ward, days=days, by=dict(by.most_common())))
    return Operating(at_rest=at_rest, found=tuple(found))


def drift_alarms() -> list[Measured]:
    """Measure a little of it: a small hospital, the small ward, four years at rest, and what is most easily found."""
    chosen = [each for each in DRIFTS if each.knob in {"units change, unlabelled", "searches for results fail"}][2::3]
    with tempfile.TemporaryDirectory(prefix="deployr-drift-") as folder:
        found = measured(Path(folder), repetitions=4, years=4, patients=_FEW_PATIENTS, drifts=chosen, wards=("small",))
    (rest,) = found.at_rest
    figures = [_figure("false drift alarms a year, 20 requests a day, 4 years", rest.a_year, "1/year")]
    for each in found.found:
        day = each.quantile(0.5)
        figures.append(
            _figure(
                f"days until {each.knob} ({each.size}) is an alarm, median of 4", math.nan if day is None else day, "d"
            )
        )
    return figures


def _figure(name: str, value: float, unit: str) -> Measured:
    return Measured(name=name, value=round(value, 2), unit=unit, baseline=None, ratio=None, goal="", met=None)


# What is shown


def tables(found: Operating) -> str:
    """Write the tables of docs/drift-alarms.md."""
    lines = ["| ward | false alarms a year | 95 % interval | years with none |", "|---|---:|---:|---:|"]
    for rest in found.at_rest:
        low, high = rest.interval
        none = sum(not alarms_ for alarms_ in rest.alarms)
        lines.append(
            f"| {rest.ward}, {rest.a_day:.0f} a day | {rest.a_year:.2f} | {low:.2f} to {high:.2f} |"
            f" {none} of {len(rest.alarms)} |"
        )
    wards = tuple(dict.fromkeys(each.ward for each in found.found))
    lines += [
        "",
        "| what changes | size |" + "".join(f" {ward}: median | 90 % | never |" for ward in wards) + " told by |",
    ]
    lines += ["|---|---|" + "---:|---:|---:|" * len(wards) + "---|"]
    rows: dict[tuple[str, str], list[Found]] = {}
    for each in found.found:
        rows.setdefault((each.knob, each.size), []).append(each)
    for (knob, size), row in rows.items():
        cells = "".join(
            f" {_day(each.quantile(0.5))} | {_day(each.quantile(0.9))} | {each.never:.0%} |" for each in row
        )
        told = Counter[str]()
        for each in row:
            told.update(each.by)
        lines.append(f"| {knob} | {size} |{cells} {', '.join(kind for kind, _ in told.most_common(2))} |")
    return "\n".join(lines) + "\n"


def _day(day: int | None) -> str:
    return "–" if day is None else f"{day}"


def figure(found: Operating) -> Figure:
    """Draw the days to the alarm of every knob, for both wards."""
    names = tuple(dict.fromkeys(f"{each.knob}: {each.size}" for each in found.found))
    marks = []
    for (ward, a_day), role, shift in zip(WARDS.items(), (Role.CONTRAST, Role.MAIN), (-0.15, 0.15), strict=True):
        own = [each for each in found.found if each.ward == ward]
        columns = [[_late(each.quantile(share)) for each in own] for share in (0.5, 0.1, 0.9)]
        marks.append(
            Points(
                name=f"{a_day:.0f} requests a day",
                x=numbers(columns[0]),
                y=numbers(names.index(f"{each.knob}: {each.size}") + shift for each in own),
                low=numbers(columns[1]),
                high=numbers(columns[2]),
                level=True,
                role=role,
            )
        )
    return Figure(
        name="drift-alarms",
        title="Days from the onset of a drift to the alarm",
        told="Median and the span from the 10th to the 90th percentile; at 90 days: not found.",
        x=Axis(name="Days from onset; at 90: not found", unit="d", low=0.0, high=float(FOLLOWED_DAYS)),
        y=Axis(name="What changes", kind=Kind.NAMES, names=names),
        marks=tuple(marks),
        width=820,
        height=110 + 32 * len(names),
    )


def _late(day: int | None) -> float:
    return float(FOLLOWED_DAYS if day is None else day)


def main() -> int:
    """Measure all of it, write figures and picture, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10, help="of each drift in each ward")
    parser.add_argument("--years", type=int, default=20, help="at rest, of each ward")
    parser.add_argument("--patients", type=int, default=_PATIENTS, help="of each hospital")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="deployr-drift-") as folder,
        ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool,
    ):
        found = measured(
            Path(folder), repetitions=asked.repetitions, years=asked.years, patients=asked.patients, pool=pool
        )
    RESULTS.write_text(json.dumps(msgspec.to_builtins(found), indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(figure_svg(figure(found)), encoding="utf-8")
    sys.stdout.write(tables(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
