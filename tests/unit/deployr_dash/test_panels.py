"""What the dashboard shows of packets that are counted by hand, and of a season made up from a seed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from deployr_core.label_rules import LabComponent
from deployr_dash.panels.curves import discrimination
from deployr_dash.panels.drift import drift
from deployr_dash.panels.effects import effect
from deployr_dash.panels.operations import deliveries, latency, volume
from deployr_dash.panels.panel import Panel, View, Window, labelled, patients_of
from deployr_dash.panels.people import group_name, missing_labels, subgroups
from deployr_dash.panels.performance import estimated, in_short
from deployr_dash.panels.tabs import TABS, panels_of
from deployr_dash.panels.trial import under_selection
from deployr_dash.panels.trial_design import trial_health
from deployr_dash.panels.usefulness import burden
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Bars
from tests.unit.deployr_dash.made_up import NOW, START, packets, view

SEASON = packets()


def every_panel(of: View) -> list[Panel]:
    return [panel for tab in TABS for panel in panels_of(of, tab)]


def test_every_panel_is_found_by_its_own_name_and_no_two_share_one() -> None:
    panels = every_panel(view(SEASON, first_day=45))
    names = [name for tab in TABS.values() for name in tab.panels]
    assert [panel.name for panel in panels] == names
    assert len(set(names)) == len(names)
    figures = [figure.name for panel in panels for figure in panel.figures]
    assert len(set(figures)) == len(figures)


def test_every_panel_says_what_it_found_or_why_there_is_nothing() -> None:
    for panel in every_panel(view(SEASON, first_day=45)):
        assert panel.said or panel.missing or panel.figures, panel.name
        assert not (panel.missing and panel.figures), panel.name
        assert all(len(figure.told) > 10 for figure in panel.figures), panel.name


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_few_packets_give_panels_that_can_be_drawn(n: int) -> None:
    for panel in every_panel(view(packets(n))):
        assert panel.said or panel.missing or panel.figures
        assert all(figure_svg(figure) for figure in panel.figures)


def test_packets_that_are_not_scored_give_panels_that_say_so() -> None:
    failed = SEASON.loc[SEASON["kind"] != "scored"].reset_index(drop=True)
    panels = {panel.name: panel for panel in every_panel(view(failed))}
    assert "was scored" in (panels["performance"].missing or "")
    assert "no score" in panels["reasons"].said[0]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_outcomes_of_one_class_have_no_curve_and_say_why(value: float) -> None:
    one = SEASON.assign(label_value=SEASON["label_value"].where(SEASON["label_value"].isna(), value))
    shown = discrimination(view(one))
    assert not shown.figures
    assert "one class" in (shown.missing or "")
    assert len(every_panel(view(one))) == sum(len(tab.panels) for tab in TABS.values())


def test_nothing_that_is_shown_holds_a_packets_or_a_patients_number() -> None:
    codes = {str(each) for each in SEASON["packet_id"]}
    for panel in every_panel(view(SEASON, first_day=45)):
        cells = [str(cell) for named in panel.tables for row in named.table.rows for cell in row]
        assert not codes & {*panel.said, *panel.notes, *cells}


def test_volume_counts_each_day_and_kind() -> None:
    three = SEASON.iloc[:3].assign(
        received_at=pd.DatetimeIndex([START, START + timedelta(hours=23), START + timedelta(days=1)]).as_unit("us"),
        kind=pd.Categorical(["scored", "failed", "scored"]),
    )
    shown = volume(view(three, last_day=2))
    bars = {mark.name: mark.heights for mark in shown.figures[0].marks if isinstance(mark, Bars)}
    assert bars == {"scored": (1.0, 1.0), "failed": (1.0, 0.0)}
    assert "3 packets: 2 scored (66.7\u00a0%), 1 failed (33.3\u00a0%)" in shown.said[0]


def test_a_long_silence_is_said() -> None:
    early = SEASON.loc[SEASON["received_at"] < pd.Timestamp(START + timedelta(days=30))].reset_index(drop=True)
    assert "may be dead" in volume(view(early)).said[1]
    assert "may be dead" not in volume(view(SEASON)).said[1]


def test_latency_gives_median_and_95th_percentile() -> None:
    hundred = SEASON.iloc[:101].assign(latency_ms=np.arange(101.0))
    assert latency(view(hundred)).said[0] == "Half of the answers took at most 50 ms, 95 of 100 at most 95 ms."


def test_deliveries_are_counted_by_where_they_stand_and_the_oldest_is_named() -> None:
    two = SEASON.iloc[:2].assign(
        deliveries_sent=[1, 0],
        deliveries_dead=[0, 0],
        deliveries_pending=[0, 1],
        received_at=SEASON["received_at"].iloc[:2],
    )
    waited = (NOW - two["received_at"].iloc[1].to_pydatetime()).total_seconds() / 3600
    assert (
        f"1 of 2 deliveries arrived, 0 were given up. The oldest that waits was asked for {waited:.1f} hours"
        in (deliveries(view(two)).said[0])
    )


def test_unripe_labels_count_only_when_asked_for() -> None:
    early = SEASON.assign(label_ripe_at=SEASON["label_ripe_at"] + pd.Timedelta(days=365))
    assert labelled(view(early)).labels.size == 0
    assert labelled(view(early, only_ripe=False)).labels.size == labelled(view(SEASON)).labels.size > 0


def test_packets_without_a_patient_each_count_as_one() -> None:
    frame = SEASON.iloc[:4].assign(patient_code=pd.array([5, None, None, 5], dtype="Int64"))
    codes = patients_of(frame)
    assert codes[0] == codes[3] == 5
    assert len(set(codes.tolist())) == 3


def test_the_funnel_adds_up() -> None:
    shown = missing_labels(view(SEASON))
    requested = len(SEASON)
    lost = sum(int(str(row[1])) for row in shown.tables[0].table.rows)
    with_label = labelled(view(SEASON)).labels.size
    assert requested - lost == with_label
    assert f"{requested:,} requested" in shown.said[0]


def test_prospective_stands_beside_what_the_bundle_says() -> None:
    shown = in_short(view(SEASON))
    rows = {str(row[0]): row for row in shown.tables[0].table.rows}
    assert rows["AUROC"][2] == "0.790 (0.770 to 0.810)"
    assert rows["Log loss (nats)"][2] == "not given"
    names = ("prospective", "retrospective", "version 0a1b2c", "version 3d4e5f")
    assert shown.figures[0].y.names == names


def test_subgroups_name_who_differs_and_hide_who_is_few() -> None:
    shown = subgroups(view(SEASON))
    assert "80 and over" in shown.said[0]
    few = SEASON.assign(sex=pd.Categorical(np.where(np.arange(len(SEASON)) < 9, "male", "female")))
    table = subgroups(view(few)).tables[0].table
    assert "too small" in str(next(row for row in table.rows if row[0] == "male")[3])


@pytest.mark.parametrize(
    ("category", "called"),
    [("[18,40)", "18 to 39"), ("[80,)", "80 and over"), ("unknown", "not recorded"), ("White", "White")],
)
def test_groups_are_called_as_people_call_them(category: str, called: str) -> None:
    assert group_name(category) == called


def test_drift_is_found_where_scores_moved_and_not_where_they_did_not() -> None:
    calm = drift(view(SEASON, first_day=20, last_day=40))
    assert not any("score" in each for each in calm.said[0].split(": ")[1:])
    later = SEASON["received_at"] >= pd.Timestamp(START + timedelta(days=45))
    moved = SEASON.assign(score=np.where(later, SEASON["score"] ** 3, SEASON["score"]))
    assert "score" in drift(view(moved, first_day=45)).said[0].split(": ")[1]


def test_drift_of_a_handful_of_packets_is_not_told_from_chance() -> None:
    assert "under 50 of either every difference is chance" in (drift(view(packets(60))).missing or "")


def test_a_trial_is_read_from_its_packets_and_without_one_it_is_said() -> None:
    season, silent = view(SEASON), view(packets(600, trial=False))
    assert "Outcome in" in effect(season).said[0]
    assert "fit the chances" in trial_health(season).said[0]
    assert "design" in under_selection(season).said[0]
    assert all(make(silent).missing for make in (effect, trial_health, under_selection))


def test_silent_packets_say_what_would_have_alerted() -> None:
    silent = packets(600, trial=False)
    reached = int((silent["score"] >= 0.6).sum())
    assert burden(view(silent)).said[0].startswith(f"{reached} packets would alert in 90 days")


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="ends after it starts"):
        Window(start=NOW, end=START)


def test_the_made_up_manifest_is_of_a_label_that_the_window_fits() -> None:
    manifest = view(SEASON).manifest
    assert manifest is not None
    assert isinstance(manifest.task.rule, LabComponent)


def test_days_that_are_yet_to_come_are_no_quiet_days() -> None:
    # The extract is of 1 April: of a window up to 10 April nine days have not been yet.
    wide = replace(view(SEASON), window=Window(start=START, end=NOW + timedelta(days=9)))
    assert (wide.window.days, wide.days_so_far, view(SEASON).days_so_far) == (99, 90, 90)
    assert burden(wide).said == burden(view(SEASON)).said
    without = 90 - SEASON["received_at"].dt.floor("D").nunique()
    assert f"{without} day{'' if without == 1 else 's'} had none" in volume(wide).figures[0].told


def test_performance_is_estimated_from_labels_of_the_same_version_only() -> None:
    seen = view(SEASON, first_day=60)
    rows = (seen.before["version"] == "3d4e5f") & (seen.before["label_kind"] == "observed")
    assert f"Estimated from {int(rows.sum()):,} labelled packets of version 3d4e5f" in estimated(seen).tables[0].caption
    # On day 45 another version begins: of it nothing is known before.
    assert "mean something else" in (estimated(view(SEASON, first_day=45)).missing or "")
