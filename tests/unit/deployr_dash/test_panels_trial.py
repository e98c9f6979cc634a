"""What the dashboard shows of a trial: while it runs, whether it runs as designed, and what is worth what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from deployr_core.monitoring.discontinuity import discontinuity
from deployr_core.monitoring.effects import intention_to_treat, stepped_wedge
from deployr_core.monitoring.sequential import spending_bounds
from deployr_dash.filters import Filters, chosen, filters_of, query_of
from deployr_dash.panels.at_threshold import at_the_threshold
from deployr_dash.panels.curves import calibration, discrimination
from deployr_dash.panels.drift import presence
from deployr_dash.panels.effects import effect, wedge
from deployr_dash.panels.looks import running_effect
from deployr_dash.panels.panel import Panel, View
from deployr_dash.panels.people import subgroups
from deployr_dash.panels.tabs import panels_of
from deployr_dash.panels.trial_design import enrolled, likeness, strata, trial_health
from deployr_dash.panels.usefulness import burden, utility
from deployr_dash.panels.volumes import volume_against_before
from deployr_dash.plan import parse_plan, read_held_out
from deployr_dash.planned import PlannedTrial, PlannedUtilities
from deployr_dash.views import as_planned
from deployr_dev.evaluation.measuring import evaluate
from deployr_dev.evaluation.report import write_report
from deployr_plots.figures import Band, Bars, Level, Line, Points
from deployr_plots.words import number
from tests.unit.deployr_dash.made_up import START, manifest, packets, view

SEASON = packets()
TRIAL = PlannedTrial(begins=START.date(), units=1200, units_per_day=10.0, detectable=0.05)
PLAN = b"""model: hematocrit
watched: []
utilities: {true_positive: 10, false_positive: -1, false_negative: 0, true_negative: 0, unit: minutes}
trial:
  begins: 2015-01-01
  units: 1200
  units_per_day: 10
  detectable: 0.05
  looks: [0.5, 1.0]
  strata: [department, language]
"""


def planned(frame: pd.DataFrame = SEASON, **changes: object) -> View:
    """Give a view of the whole season with a plan."""
    return replace(view(frame), planned_trial=msgspec.structs.replace(TRIAL, **changes))


# -- what was planned


def test_a_plan_says_what_the_trial_and_its_users_agreed_on() -> None:
    plan = parse_plan(PLAN)
    assert plan.trial is not None
    assert plan.utilities is not None
    assert (plan.trial.begins, plan.trial.strata[1]) == (date(2015, 1, 1), "language")
    # Acting pays where 10 p > 1 (1 - p): from 1 / 11 on.
    assert plan.utilities.as_utilities().threshold == pytest.approx(1 / 11)


def test_the_plan_in_the_docs_can_be_read() -> None:
    blocks = (Path(__file__).parents[3] / "docs" / "dashboard.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    [plan] = [parse_plan(block.split("```")[0].encode()) for block in blocks]
    assert plan.trial is not None
    assert plan.trial.strata == ("department",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"units": 0},
        {"detectable": 0.0},
        {"looks": (0.5, 0.9)},
        {"looks": (1.0, 0.5)},
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        msgspec.structs.replace(TRIAL, **wrong)
    with pytest.raises(ValueError, match="worth more than a missed one"):
        PlannedUtilities(true_positive=0, false_positive=-1, false_negative=0, true_negative=0, unit="minutes")


def test_a_difference_found_in_four_of_five_trials_is_2_8_standard_errors() -> None:
    # The normal quantiles at 97.5 % and 80 %: 1.960 + 0.842.
    assert TRIAL.standard_error == pytest.approx(0.05 / 2.8016, rel=1e-4)


# -- while it runs


def test_a_trial_without_a_plan_or_without_its_beginning_is_not_looked_at_day_by_day() -> None:
    assert "before the first one" in (running_effect(view(SEASON)).missing or "")
    late = replace(view(SEASON, first_day=45), planned_trial=TRIAL)
    assert "began on 2015-01-01" in (running_effect(late).missing or "")
    assert "began on 2015-01-01" in (enrolled(late).missing or "")
    assert "No trial" in (running_effect(replace(view(packets(300, trial=False)), planned_trial=TRIAL)).missing or "")


def test_the_last_look_is_the_effect_of_all_outcomes_with_a_wider_interval() -> None:
    whole = effect(planned())
    shown = running_effect(planned())
    [level, band, points] = shown.figures[0].marks
    assert level.name == "no effect"
    bar = whole.figures[0].marks[1]
    assert isinstance(points, Points)
    assert isinstance(bar, Points)
    assert points.y[-1] == pytest.approx(bar.x[0])
    assert isinstance(band, Band)
    assert band.x[-1] == points.x[-1]
    assert band.high[-1] - band.low[-1] > bar.high[0] - bar.low[0]


def test_planned_looks_stand_against_the_bound_of_alpha_spending() -> None:
    # So much is planned that none of it has been reached: then the bounds are those of the plan.
    shown = running_effect(planned(detectable=0.001, looks=(0.5, 1.0)))
    bounds = [row[4] for row in shown.tables[0].table.rows]
    assert bounds == [round(each, 2) for each in spending_bounds((0.5, 1.0)).tolist()]
    assert [row[1] for row in shown.tables[0].table.rows] == ["not yet", "not yet"]
    assert "No planned look has passed its bound." in shown.said[1]
    reached = running_effect(planned(detectable=0.2, looks=(0.5, 1.0)))
    assert "not yet" not in [row[1] for row in reached.tables[0].table.rows]


def test_an_effect_that_is_there_stops_and_one_that_is_not_does_not() -> None:
    seen = SEASON["label_kind"] == "observed"
    shows = SEASON["arm"] == "shown"
    cured = SEASON.assign(label_value=SEASON["label_value"].where(~(seen & shows), 0.0))
    assert "an effect is shown, however often anybody looked" in running_effect(planned(cured)).said[0]
    chance = np.random.default_rng(2).random(len(SEASON))
    alike = SEASON.assign(label_value=SEASON["label_value"].where(~seen, (chance < 0.3).astype(float)))
    assert "neither an effect nor its absence" in running_effect(planned(alike)).said[0]


def test_under_fifty_clusters_there_is_no_interval_that_holds_at_every_look() -> None:
    wards = SEASON.assign(unit="department", unit_code=2 * (SEASON["patient_code"] % 10) + (SEASON["arm"] == "shown"))
    assert "Under 50 clusters" in running_effect(planned(wards)).said[0]


# -- what is independent of each other


@pytest.mark.parametrize(("unit", "called"), [("order", "orders"), ("encounter", "encounters")])
def test_units_within_a_patient_are_clustered_by_patient_and_it_is_said(unit: str, called: str) -> None:
    own = SEASON.assign(unit=unit, unit_code=np.arange(len(SEASON)))
    [by_unit, by_patient] = [effect(view(each)) for each in (own, SEASON)]
    first = by_unit.notes[0]
    assert first.startswith(f"Intention to treat: by arm, whatever was shown. Units are {called}.")
    assert "clusters are patients" in first
    assert by_unit.said == by_patient.said


def test_the_interval_by_order_is_that_of_patients_computed_by_hand() -> None:
    own = SEASON.assign(unit="order", unit_code=np.arange(len(SEASON)))
    rows = own.loc[(own["label_kind"] == "observed") & (own["kind"] == "scored")]
    found = intention_to_treat(
        rows["label_value"].to_numpy(float),
        (rows["arm"] == "shown").to_numpy(bool),
        rows["patient_code"].to_numpy(np.int64),
    )
    bar = effect(view(own)).figures[0].marks[1]
    assert isinstance(bar, Points)
    assert (bar.low[0], bar.high[0]) == pytest.approx((found.effect.low, found.effect.high))


def test_a_unit_of_many_patients_is_one_cluster() -> None:
    wards = SEASON.assign(unit="department", unit_code=2 * (SEASON["patient_code"] % 10) + (SEASON["arm"] == "shown"))
    assert "Units are departments, each one of the 20 clusters" in effect(view(wards)).notes[0]


# -- whether it runs as designed


def test_an_arm_that_lost_units_sounds_the_alarm() -> None:
    lost = SEASON.loc[(SEASON["arm"] != "shown") | (SEASON["patient_code"] % 2 == 0)].reset_index(drop=True)
    assert "find out why before anything else is read" in trial_health(view(lost)).said[0]
    assert "fit the chances" in trial_health(view(SEASON)).said[0]


def test_an_arm_that_no_unit_is_in_sounds_the_alarm() -> None:
    # Some 500 units, each in the one arm with a chance of a half.
    one = SEASON.loc[SEASON["arm"] == "shown"].reset_index(drop=True)
    shown = trial_health(view(one))
    assert "find out why before anything else is read" in shown.said[0]
    assert {row[0]: row[1] for row in shown.tables[0].table.rows}["arms without a unit"] == 0
    assert "No trial" in (trial_health(view(one.assign(p_arm=1.0))).missing or "")


def test_a_trial_whose_packets_do_not_name_their_unit_says_so() -> None:
    [shown] = [each for each in panels_of(view(SEASON.assign(unit=None)), "impact") if each.name == "trial"]
    assert "name the unit of randomization" in (shown.missing or "")


def test_a_stratum_that_has_a_bracket_in_its_name_keeps_it() -> None:
    wards = np.where(SEASON["unit_code"] < 5, "Ward 3 (east)", "Ward 3 (west)")
    names = strata(view(SEASON.assign(stratum=wards))).figures[0].y.names
    assert "Ward 3 (east)" in names
    assert any(each.startswith("Ward 3 (west) (") for each in names)


def test_strata_are_counted_each_by_itself_and_small_ones_are_not_shown() -> None:
    shown = strata(view(SEASON))
    units = SEASON.loc[SEASON["kind"] == "scored"].drop_duplicates("unit_code")
    counted = {row[0]: (row[1], row[2]) for row in shown.tables[0].table.rows}
    for name in ("intensive-care", "medicine", "surgery"):
        of = units.loc[units["stratum"] == name, "arm"]
        assert counted[name] == ((of == "control").sum(), (of == "shown").sum())
    rare = SEASON.assign(stratum=np.where(SEASON["unit_code"] < 5, "rare", "common"))
    few = strata(view(rare))
    assert [row[0] for row in few.tables[0].table.rows] == ["common"]
    assert "rare" in few.figures[0].y.names
    assert "rare" not in few.figures[0].told
    assert "strata" in (strata(view(SEASON.assign(stratum=None))).missing or "")


def test_the_arms_likeness_is_that_of_each_units_first_packet() -> None:
    shown = likeness(view(SEASON))
    table = {str(row[0]): row for row in shown.tables[0].table.rows}
    first = SEASON.loc[SEASON["kind"] == "scored"].drop_duplicates("unit_code")
    means = [(first.loc[first["arm"] == arm, "sex"] == "female").mean() for arm in ("control", "shown")]
    assert table["sex: female"][1:3] == tuple(map(number, means))
    spread = np.sqrt(np.mean([mean * (1 - mean) * n / (n - 1) for mean, n in zip(means, _sizes(first), strict=True)]))
    assert table["sex: female"][3] == round((means[1] - means[0]) / spread, 3)
    assert "as alike as chance makes them" in shown.said[0]
    sorted_by_age = SEASON.assign(arm=np.where(SEASON["age_band"] == "[80,)", "shown", "control"))
    assert "more unlike than chance" in likeness(view(sorted_by_age)).said[0]


def _sizes(first: pd.DataFrame) -> list[int]:
    return [int((first["arm"] == arm).sum()) for arm in ("control", "shown")]


def test_enrolment_counts_each_unit_on_the_day_of_its_first_packet() -> None:
    shown = enrolled(planned())
    first = SEASON.loc[SEASON["kind"] == "scored"].drop_duplicates("unit_code")["received_at"]
    line = shown.figures[0].marks[-1]
    assert isinstance(line, Line)
    assert line.y[-1] == len(first)
    assert line.y[0] == (first < pd.Timestamp(START + timedelta(days=1))).sum()
    # 90 days at 10 a day.
    assert f"{len(first)} of 1,200 planned units in 90 days, where 900 were planned by now." in shown.said[0]
    assert "find out who is not asked any more" in enrolled(planned(units_per_day=100.0)).said[1]


def _wedge(*, wards: int = 6, n: int = 1800) -> pd.DataFrame:
    """Give packets of a stepped wedge: wards 1 and 2 change over in February, 3 and 4 in March, 5 and 6 have yet to."""
    rng, frame = np.random.default_rng(6), packets(n)
    ward, month = 1 + np.arange(n) % wards, frame["received_at"].dt.month.to_numpy() - 1
    treated = month > (ward - 1) // 2
    outcome = (rng.random(n) < 0.4 - 0.15 * treated + 0.03 * ward).astype(float)
    return frame.assign(
        kind="scored",
        eligible=pd.array([True] * n, dtype="boolean"),
        label_kind="observed",
        label_ripe_at=frame["received_at"],
        label_value=outcome,
        unit="department",
        unit_code=ward,
        wedge_cluster=ward,
        wedge_period=month,
        stratum=None,
        arm=np.where(treated, "shown", "control"),
        shown_by_design=pd.array(treated, dtype="boolean"),
        # By month none, two and four of six wards have changed over.
        p_arm=np.where(treated, month / 3, 1 - month / 3),
        p_shown=month / 3,
    )


def test_a_stepped_wedge_is_measured_on_what_its_packets_say() -> None:
    frame = _wedge()
    shown = wedge(view(frame))
    found = stepped_wedge(
        frame["label_value"].to_numpy(float),
        (frame["arm"] == "shown").to_numpy(bool),
        frame["wedge_period"].to_numpy(np.int64),
        frame["wedge_cluster"].to_numpy(np.int64),
    )
    assert number(100 * found.value, digits=1) in shown.said[0]
    assert "cluster 6 has not changed over yet" in shown.figures[0].told
    assert "cluster 3 changed over with step 2" in shown.figures[0].told
    assert shown.figures[0].y.names == tuple(f"cluster {each}" for each in range(1, 7))
    assert shown.tables[0].table.rows[0][2:] == (6, 3)
    assert "Clusters are departments" in shown.notes[0]
    named = wedge(view(frame.assign(stratum=np.array(list("xABCDEF"))[frame["wedge_cluster"]])))
    assert named.figures[0].y.names == tuple("ABCDEF")


def test_packets_that_are_of_no_stepped_wedge_have_none() -> None:
    assert "No stepped wedge runs" in (wedge(view(SEASON)).missing or "")
    half = np.random.default_rng(1).random(1800) < 0.5
    mixed = _wedge().assign(arm=np.where(half, "shown", "control"), shown_by_design=pd.array(half, dtype="boolean"))
    assert "wholly control or wholly treated" in (wedge(view(mixed)).missing or "")
    unripe = _wedge().assign(label_kind=None)
    assert "No packet of the trial has an outcome" in (wedge(view(unripe)).missing or "")


@pytest.mark.parametrize("panel", [trial_health, strata, likeness, effect])
def test_arms_that_follow_each_other_are_not_compared_as_if_they_ran_beside_each_other(
    panel: Callable[[View], Panel],
) -> None:
    assert "see the panel of that name" in (panel(view(_wedge())).missing or "")


def test_who_was_left_out_as_no_listed_cluster_has_no_part_in_the_wedge() -> None:
    frame = _wedge()
    out = frame.assign(
        eligible=pd.array(frame["wedge_cluster"] != 6, dtype="boolean"),
        wedge_period=frame["wedge_period"].where(frame["wedge_cluster"] != 6),
    )
    assert wedge(view(out)).tables[0].table.rows[0][2] == 5


# -- groups that strata tell of


def test_a_stratum_is_a_group_and_its_parts_are_groups_of_their_own_where_the_plan_names_them() -> None:
    two = SEASON.assign(
        stratum=SEASON["stratum"].astype(str) + np.where(SEASON["patient_code"] % 2 == 0, " | Spanish", " | English")
    )
    whole = subgroups(view(two))
    assert "By stratum" in [named.caption for named in whole.tables]
    named = replace(view(two), planned_trial=msgspec.structs.replace(TRIAL, strata=("ward", "language")))
    parts = {each.caption: each.table for each in subgroups(named).tables}
    assert [row[0] for row in parts["By language"].rows] == ["English", "Spanish"]
    assert [row[0] for row in parts["By ward"].rows] == ["intensive-care", "medicine", "surgery"]


def test_a_stratum_can_be_chosen_in_the_address() -> None:
    filters = Filters(cohort={"stratum": "medicine"})
    assert query_of(filters) == {"stratum": "medicine"}
    assert filters_of({"stratum": "medicine"}) == filters
    assert set(chosen(SEASON, filters)["stratum"]) == {"medicine"}


# -- what is worth what, and to whom


def test_utility_is_the_mean_worth_of_what_was_done_and_happened() -> None:
    worth = PlannedUtilities(true_positive=10, false_positive=-1, false_negative=0, true_negative=0, unit="minutes")
    assert "Nobody has said so yet" in (utility(view(SEASON)).missing or "")
    shown = utility(replace(view(SEASON), utilities=worth))
    rows = SEASON.loc[(SEASON["label_kind"] == "observed") & (SEASON["kind"] == "scored")]
    alert, happened = rows["score"] >= 0.6, rows["label_value"] == 1.0
    mean = (10.0 * (alert & happened) - 1.0 * (alert & ~happened)).mean()
    everybody = (10.0 * happened - 1.0 * ~happened).mean()
    [bars] = [mark for mark in shown.figures[0].marks if isinstance(mark, Points)]
    assert bars.x[0] == pytest.approx(mean)
    assert bars.x[2:] == pytest.approx((0.0, everybody))
    assert "minutes a packet" in shown.said[0]


def _of_clinicians(clinicians: int) -> pd.DataFrame:
    """Give a packet a day, on four days, for each of some clinicians; the first also has two more on the first day.

    The first's are alerts, all six, and so is one of the second's; no other's are.
    """
    who = np.concatenate([[0, 0], np.repeat(np.arange(clinicians), 4)])
    days = np.concatenate([[0, 0], np.tile(np.arange(4), clinicians)])
    alerts = (who == 0) | ((who == 1) & (days == 3))
    at = pd.DatetimeIndex([START + timedelta(days=int(day), hours=1) for day in days])
    return packets(who.size).assign(
        kind="scored",
        score=0.5,
        received_at=at.as_unit("us"),
        advised=pd.array(alerts, dtype="boolean"),
        clinician_code=pd.array(who, dtype="Int64"),
    )


def test_alerts_are_counted_by_day_and_by_clinician() -> None:
    shown = burden(view(_of_clinicians(20), last_day=4))
    table = shown.tables[0].table
    assert table.columns == ("alerts", "on a day", "of a clinician on a day")
    # By day 3, 1, 1 and 2 alerts; of 80 clinicians' days one has 3, four have 1, and 75 have none.
    rows = {str(row[0]): [str(cell).split(" ")[0] for cell in row[1:]] for row in table.rows}
    assert rows == {"mean": ["1.75", "0.09"], "median": ["1", "0"], "90th percentile": ["3", "0"], "most": ["3", "3"]}
    # The busiest tenth are the first and the second: all seven alerts.
    assert "The tenth of them who get most have 100.0" in shown.notes[-2]
    assert "20 clinicians" in shown.notes[-2]
    [bars] = [mark for mark in shown.figures[1].marks if isinstance(mark, Bars)]
    assert bars.heights == pytest.approx((75 / 80, 4 / 80, 0.0, 1 / 80))
    assert "too narrow to be trusted" in shown.notes[-1]


def test_of_few_clinicians_no_figure_is_given() -> None:
    shown = burden(view(_of_clinicians(9), last_day=4))
    assert shown.tables[0].table.columns == ("alerts", "on a day")
    assert "fewer than 10 clinicians" in shown.notes[-1]
    assert "No packet of this window says for whom" in burden(view(SEASON)).notes[-1]


# -- what comes in, now and before


def test_volume_is_compared_over_whole_weeks() -> None:
    at = pd.DatetimeIndex(
        [START + timedelta(days=day, hours=hour) for day in range(45) for hour in range(4 if day < 15 else 8)]
    )
    frame = packets(len(at)).assign(received_at=at.as_unit("us"))
    shown = volume_against_before(view(frame, first_day=15, last_day=45))
    rows = {row[0]: row[1:3] for row in shown.tables[0].table.rows}
    assert rows["all days"] == rows["weekends"] == (4.0, 8.0)
    # 30 days hold four weeks, 15 days two.
    assert "last 28 days against the 14 days before" in shown.notes[0]
    assert "ratio of 2.00 (2.00 to 2.00)" in shown.said[0]
    assert "two whole weeks" in (volume_against_before(view(frame, first_day=10, last_day=20)).missing or "")


def test_a_search_that_is_not_answered_any_more_is_found() -> None:
    late = SEASON["received_at"] >= pd.Timestamp(START + timedelta(days=45))
    gone = SEASON.assign(
        searches=[each[:1] if is_late else each for each, is_late in zip(SEASON["searches"], late, strict=True)]
    )
    calm, found = (presence(view(each, first_day=45)).said[0] for each in (SEASON, gone))
    assert "search: conditions" not in calm
    assert "search: conditions" in found


# -- the retrospective curves behind


def test_the_report_that_training_writes_can_be_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores = rng.random(80)
    labels = (rng.random(80) < scores).astype(float)
    evaluated = evaluate(
        labels,
        scores,
        np.arange(80),
        rng=rng,
        subgroups={},
        available_features=np.ones(80, dtype=np.int64),
        resamples=10,
    )
    write_report(tmp_path / "reports" / "hematocrit", manifest=manifest(), evaluation=evaluated)
    plan = parse_plan(PLAN)
    seen = as_planned(view(SEASON), plan, read_held_out(tmp_path))
    assert (seen.planned_trial, seen.utilities) == (plan.trial, plan.utilities)
    then = seen.retrospective
    assert then is not None
    # The last threshold alerts on everybody.
    assert then.roc[-1] == (1.0, 1.0)
    assert then.precision_recall[-1][0] == 1.0
    assert len(then.calibration) == len(evaluated.calibration)


def test_the_curves_of_trainings_report_stand_behind_those_in_service(tmp_path: Path) -> None:
    measured = {"kind": "measured", "value": 0.3, "low": 0.2, "high": 0.4, "resamples": 60}
    report = {
        "manifest": {"model_id": "hematocrit", "version": "3d4e5f"},
        "evaluation": {
            "roc": {
                "kind": "roc",
                "thresholds": [0.9],
                "false_positive_rates": [0.2, 1.0],
                "sensitivities": [0.7, 1.0],
            },
            "precision_recall": {"kind": "precision-recall", "recalls": [0.7, 1.0], "precisions": [0.6, 0.3]},
            "calibration": [
                {"mean_score": 0.3, "observed": measured},
                {"mean_score": 0.9, "observed": {"kind": "not-measured", "why": "expected rows"}},
            ],
        },
    }
    (tmp_path / "hematocrit").mkdir()
    (tmp_path / "hematocrit" / "report.json").write_bytes(msgspec.json.encode(report))
    (tmp_path / "report.json").write_text("[]", encoding="utf-8")
    held_out = read_held_out(tmp_path)
    assert (list(held_out), read_held_out(None)) == (["hematocrit"], {})
    seen = replace(view(SEASON), held_out=held_out["hematocrit"])
    for figure in discrimination(seen).figures:
        assert {"prospective", "retrospective"} <= {mark.name for mark in figure.marks if isinstance(mark, Line)}
    roc = discrimination(seen).figures[0]
    assert "On held-out rows it was 0.790 (0.770 to 0.810)." in roc.told
    [behind, _] = [mark for mark in calibration(seen).figures[0].marks if isinstance(mark, Points)]
    assert (behind.name, behind.x, behind.y, behind.low, behind.high) == (
        "retrospective",
        (0.3,),
        (0.3,),
        (0.2,),
        (0.4,),
    )
    assert "held-out rows" in calibration(seen).notes[1]
    alone = discrimination(view(SEASON)).figures[0].marks
    assert [mark.name for mark in alone if isinstance(mark, Line)] == ["no better than chance", ""]


# -- at the threshold


def at_a_jump(jump: float = -0.3) -> pd.DataFrame:
    """Give the season with outcomes that go with the score, and change by so much from the threshold of 0.6 on."""
    scores = SEASON["score"].to_numpy(float)
    chance = np.clip(0.2 + 0.6 * scores + jump * (scores >= 0.6), 0.0, 1.0)
    happened = np.random.default_rng(5).random(len(SEASON)) < chance
    seen = SEASON["label_kind"] == "observed"
    # As in `packets`, the threshold was in force with each score.
    return SEASON.assign(
        label_value=SEASON["label_value"].where(~seen, happened.astype(float)),
        threshold=np.where(SEASON["score"].notna(), 0.6, np.nan),
        version="3d4e5f",
    )


def test_the_jump_at_the_threshold_is_drawn_as_it_is_measured() -> None:
    frame = at_a_jump()
    shown = at_the_threshold(view(frame))
    [figure] = shown.figures
    level = next(mark for mark in figure.marks if isinstance(mark, Level))
    below, above = (mark for mark in figure.marks if isinstance(mark, Line))
    assert (level.at, below.x[-1], above.x[0]) == (0.6, 0.6, 0.6)
    rows = frame.loc[(frame["label_kind"] == "observed") & (frame["kind"] == "scored")]
    found = discontinuity(
        rows["score"].to_numpy(float),
        rows["label_value"].to_numpy(float),
        rows["patient_code"].to_numpy(np.int64),
        threshold=0.6,
    )
    assert below.y[-1] == pytest.approx(found.left_limit)
    assert above.y[0] - below.y[-1] == pytest.approx(found.value)
    assert (level.low, level.high) == pytest.approx((0.6 - found.bandwidth, 0.6 + found.bandwidth))
    assert "percentage points" in shown.said[0]
    assert shown.tables[0].table.rows[0][4:] == (found.below, found.above)


def test_points_at_the_threshold_are_means_and_none_is_of_a_few() -> None:
    frame = at_a_jump()
    [figure] = at_the_threshold(view(frame)).figures
    points = [mark for mark in figure.marks if isinstance(mark, Points)]
    assert [mark.name for mark in points] == ["mean below", "mean at or above"]
    assert all(each < 0.6 for each in points[0].x)
    assert all(each >= 0.6 for each in points[1].x)
    few = at_the_threshold(view(frame.assign(patient_code=np.where(frame["score"] < 0.5, 1, frame["patient_code"]))))
    # Of everybody under 0.5 one patient is left: no mean is shown of them.
    shown = [each for mark in few.figures[0].marks if isinstance(mark, Points) for each in mark.x]
    assert min(shown) >= 0.45


def test_packets_under_another_threshold_or_version_are_measured_apart() -> None:
    frame = at_a_jump()
    early = frame["received_at"] < pd.Timestamp(START + timedelta(days=45))
    mixed = frame.assign(threshold=np.where(early, 0.4, frame["threshold"]), version=np.where(early, "old", "new"))
    shown = at_the_threshold(view(mixed))
    assert "Regression discontinuity of version new" in " ".join(shown.notes)
    assert {row[:2] for row in shown.tables[0].table.rows} == {("new", "0.600"), ("old", "0.400")}
    alone = at_the_threshold(view(mixed.loc[~early].reset_index(drop=True)))
    assert shown.said == alone.said
    assert shown.figures == alone.figures


def test_where_nothing_was_shown_the_jump_is_not_taken_for_the_advisorys() -> None:
    assert "No advisory was shown" in at_the_threshold(view(at_a_jump().assign(shown_at=pd.NaT))).notes[0]
    without = view(SEASON.assign(threshold=np.nan))
    assert "needs a threshold" in (at_the_threshold(without).missing or "")
