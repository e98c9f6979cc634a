"""The packets of the newest trial in a window: its arms, its units, and what of them is independent of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats, NotMeasurable
from deployr_core.monitoring.designs import clusters_of
from deployr_core.outputs import Target
from deployr_core.trial import RandomizationUnit
from deployr_dash.panels.panel import View, is_ripe, outcomes, patients_of
from deployr_plots.words import number, percent

_ROUNDING = 1e-6
WITHIN_A_PATIENT = frozenset({RandomizationUnit.ENCOUNTER, RandomizationUnit.ORDER})
PLURALS = {
    RandomizationUnit.PATIENT: "patients",
    RandomizationUnit.ENCOUNTER: "encounters",
    RandomizationUnit.ORDER: "orders",
    RandomizationUnit.PROVIDER: "clinicians",
    RandomizationUnit.DEPARTMENT: "departments",
    RandomizationUnit.TIME_BLOCK: "blocks of time",
}
STEPPED = "In a stepped wedge every cluster is in both arms, one after the other: see the panel of that name."
"""In place of what compares arms that run beside each other."""


def took_part(view: View, packets: pd.DataFrame | None = None) -> pd.DataFrame:
    """Give scored packets that took part in the newest trial and version of the window, the suppressed among them.

    Args:
        view: in whose window the trial is looked for.
        packets: which are given; None gives those of the window.
    """
    inside = _of_any_trial(view.packets)
    if inside.empty:
        return inside
    newest = inside.loc[inside["received_at"].idxmax()]
    of = inside if packets is None else _of_any_trial(packets)
    return of.loc[(of["trial_id"] == newest["trial_id"]) & (of["trial_version"] == newest["trial_version"])]


def of_trial(view: View, packets: pd.DataFrame | None = None) -> pd.DataFrame:
    """Give those of `took_part` whose showing chance decided: not the suppressed."""
    found = took_part(view, packets)
    return found.loc[found["p_shown"].notna()]


def is_stepped(packets: pd.DataFrame) -> bool:
    """Tell whether a trial's packets are of a stepped wedge."""
    return bool(packets["wedge_period"].notna().any())


def ripe_outcomes(view: View, packets: pd.DataFrame) -> Floats:
    """Give each packet's outcome, NaN where none is observed, or not yet ripe while only ripe ones count."""
    found = outcomes(view, packets)
    if view.only_ripe:
        found = np.where(is_ripe(packets["label_ripe_at"], now=view.now), found, np.nan)
    return found


def unit_of(packets: pd.DataFrame) -> RandomizationUnit:
    """Give what the trial of these packets assigns as a whole.

    Raises:
        NotMeasurable: none of them says, as in an extract that an earlier version made.
    """
    known = packets["unit"].dropna()
    if known.empty:
        raise NotMeasurable("expected packets that name the unit of randomization; run deployr monitor extract --anew")
    return RandomizationUnit(str(known.iloc[0]))


def units_of(packets: pd.DataFrame) -> pd.DataFrame:
    """Give each unit of a trial's packets once, as it was assigned, with its stratum and whether its arm shows.

    A stepped wedge has none: there a unit is in both arms.
    """
    packets = packets.loc[packets["arm"].notna() & packets["unit_code"].notna() & packets["p_arm"].notna()]
    packets = packets.loc[packets["wedge_period"].isna()]
    shows = packets.groupby("arm", observed=True)["shown_by_design"].mean()
    units = packets.drop_duplicates("unit_code").loc[:, ["unit_code", "unit", "arm", "p_arm", "stratum"]]
    names = units["arm"].astype(str)
    return units.assign(
        arm=names,
        stratum=units["stratum"].astype("object"),
        shows=names.map({str(arm): float(share) for arm, share in shows.items()}),
    )


NOBODY = "arms without a unit"
"""What is left of the chances, where not all arms have a unit: that none came is the clearest sign of all."""


def chances_of(units: pd.DataFrame) -> dict[str, float] | None:
    """Give each arm's chance, adding up to 1, `NOBODY`'s among them; None of what is no draw between arms."""
    chances = {str(arm): float(p) for arm, p in units.groupby("arm", observed=True)["p_arm"].first().items()}
    left = 1.0 - sum(chances.values())
    if left > _ROUNDING:
        chances[NOBODY] = left
    if len(chances) < 2 or left < -_ROUNDING:
        return None
    return {arm: chance / sum(chances.values()) for arm, chance in chances.items()}


def sizes_of(units: pd.DataFrame, chances: Mapping[str, float]) -> dict[str, int]:
    """Give how many units each arm has."""
    return {arm: int((units["arm"] == arm).sum()) for arm in chances}


def independent(packets: pd.DataFrame) -> NDArray[np.int64]:
    """Give what is independent of each other: patients where units lie within one, else the units themselves.

    A packet whose patient is not known stands for its unit.
    """
    units = -1 - packets["unit_code"].fillna(0).to_numpy(dtype=np.int64)
    known = packets["patient_code"].notna().to_numpy(dtype=bool)
    patients = np.where(known, packets["patient_code"].fillna(0).to_numpy(dtype=np.int64), units)
    return clusters_of(unit_of(packets), units, patients)


def who_is_independent(packets: pd.DataFrame, clusters: int) -> str:
    """Say what the clusters are, and why."""
    unit = unit_of(packets)
    if unit in WITHIN_A_PATIENT:
        return (
            f"Units are {PLURALS[unit]}. Those of one patient are alike, whichever arms they are in, so the"
            f" {clusters:,} clusters are patients."
        )
    return f"Units are {PLURALS[unit]}, each one of the {clusters:,} clusters with all of its packets."


@dataclass(frozen=True, kw_only=True, eq=False)
class Arms:
    """Packets with an outcome in the arm that shows most and in the one that shows least, in order of time.

    ``covariates``: what was known before the assignment, shape (n_packets, n_covariates): the first score of each unit,
    or of each patient where units hold several, and the strata but one.
    """

    packets: pd.DataFrame
    outcomes: Floats
    treated: NDArray[np.bool_]
    clusters: NDArray[np.int64]
    covariates: Floats
    treated_arm: str
    control_arm: str


def arms_of(view: View) -> Arms:
    """Give the arms of the newest trial.

    Raises:
        NotMeasurable: there are not two arms with outcomes yet, or it is a stepped wedge.
    """
    every = of_trial(view).sort_values("received_at", kind="stable")
    if is_stepped(every):
        raise NotMeasurable("a stepped wedge has its arms one after the other; see the panel of that name")
    every = every.loc[every["arm"].notna() & every["unit_code"].notna() & every["unit"].notna()]
    every = every.assign(outcome=ripe_outcomes(view, every), first_score=_first_scores(every))
    packets = every.loc[every["outcome"].notna()]
    shows = packets.groupby("arm", observed=True)["shown_by_design"].mean()
    if len(shows) < 2:
        raise NotMeasurable("expected two arms with outcomes in this window")
    treated_arm, control_arm = str(shows.idxmax()), str(shows.idxmin())
    packets = packets.loc[packets["arm"].isin([treated_arm, control_arm])]
    return Arms(
        packets=packets,
        outcomes=packets["outcome"].to_numpy(dtype=np.float64),
        treated=(packets["arm"].astype("object") == treated_arm).to_numpy(dtype=bool),
        clusters=independent(packets),
        covariates=_covariates(packets),
        treated_arm=treated_arm,
        control_arm=control_arm,
    )


def written(view: View, value: float) -> str:
    """Write an outcome's mean: a share as per cent, a number in its unit."""
    return f"{number(value, digits=2)} {view.unit}" if view.target is Target.REGRESSION else percent(value)


def difference(view: View, value: float, low: float, high: float) -> str:
    """Write a difference of outcomes with its interval: shares in percentage points, numbers in their unit."""
    is_number = view.target is Target.REGRESSION
    digits, factor, unit = (2, 1.0, view.unit) if is_number else (1, 100.0, "percentage points")
    shown = [number(factor * each, digits=digits) for each in (value, low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]}) {unit}"


def trial_starts(view: View) -> datetime | None:
    """Give when the plan has the trial begin, aware UTC; None without a plan."""
    planned = view.planned_trial
    return None if planned is None else datetime.combine(planned.begins, time(), UTC)


def cut_off(view: View) -> str | None:
    """Say that the window does not hold the trial from its beginning on; None where it does."""
    begins = trial_starts(view)
    if begins is not None and view.window.start > begins:
        return f"The trial began on {begins:%Y-%m-%d}, before this window: start the window there, or earlier."
    if begins is None and not of_trial(view, view.before).empty:
        return "The trial began before this window: start the window where it did."
    return None


def _of_any_trial(packets: pd.DataFrame) -> pd.DataFrame:
    return packets.loc[
        (packets["kind"] == "scored") & packets["eligible"].fillna(False).astype(bool) & packets["trial_id"].notna()
    ]


def _first_scores(packets: pd.DataFrame) -> Floats:
    """Give the first score of each packet's unit, or of its patient where units hold several; in order of time."""
    if packets.empty:
        return np.zeros(0)
    within = unit_of(packets) in {*WITHIN_A_PATIENT, RandomizationUnit.PATIENT}
    codes = packets["unit_code"] if within else pd.Series(patients_of(packets), index=packets.index)
    found: Floats = packets["score"].groupby(codes.to_numpy(dtype=np.int64)).transform("first").to_numpy(np.float64)
    return found


def _covariates(packets: pd.DataFrame) -> Floats:
    columns = [packets["first_score"].to_numpy(dtype=np.float64)]
    strata = packets["stratum"].astype("object").fillna("")
    columns += [(strata == each).to_numpy(dtype=np.float64) for each in sorted(strata.unique())[1:]]
    varying = [column for column in columns if column.std() > 0]
    return np.column_stack(varying) if varying else np.zeros((len(packets), 0))
