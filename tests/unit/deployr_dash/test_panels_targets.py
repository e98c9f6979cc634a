"""What the dashboard shows of models that predict several classes, several labels or a number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deployr_dash.filters import Filters
from deployr_dash.loading import load_frame
from deployr_dash.panels.at_threshold import at_the_threshold
from deployr_dash.panels.curves import at_thresholds, calibration, discrimination, distributions
from deployr_dash.panels.effects import effect
from deployr_dash.panels.panel import Panel, View, Window
from deployr_dash.panels.people import subgroups
from deployr_dash.panels.performance import in_short, over_time
from deployr_dash.panels.tabs import TABS, panels_of
from deployr_dash.views import COLUMNS, view_of
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Line, Points
from tests.unit.deployr_dash.made_up import NOW, START, packets, write_extract
from tests.unit.deployr_dash.other_targets import answered, manifest_of, season_of, view_of_kind

KINDS = ("classes", "labels", "numbers")
DRAWN = ("performance", "discrimination", "calibration", "thresholds")
"""Panels whose figures are of another shape than a probability's."""


def some(n: int) -> pd.DataFrame:
    """Give packets of as many patients, all scored and observed."""
    frame = packets(n)
    return frame.assign(
        kind="scored",
        label_kind="observed",
        label_ripe_at=frame["received_at"],
        version="3d4e5f",
        patient_code=pd.array(range(n), dtype="Int64"),
    )


def cells(panel: Panel, table: int) -> dict[str, tuple[object, ...]]:
    """Give a table's rows by their first cell."""
    return {str(row[0]): row[1:] for row in panel.tables[table].table.rows}


@pytest.mark.parametrize("kind", KINDS)
def test_every_panel_of_every_kind_of_model_says_what_it_found_or_why_not_and_can_be_drawn(kind: str) -> None:
    seen = view_of_kind(kind, first_day=45)
    panels = [panel for tab in TABS for panel in panels_of(seen, tab)]
    assert [panel.name for panel in panels] == [name for tab in TABS.values() for name in tab.panels]
    for panel in panels:
        assert panel.said or panel.missing or panel.figures, panel.name
        assert not (panel.missing and panel.figures), panel.name
        assert all(figure_svg(figure) for figure in panel.figures if panel.name in DRAWN), panel.name
    figures = [figure.name for panel in panels for figure in panel.figures]
    assert len(set(figures)) == len(figures)
    shown = {panel.name for panel in panels if panel.figures}
    assert {"performance", "over-time", "discrimination", "calibration", "subgroups", "effect"} <= shown


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_labels_come_out_of_an_extract_as_panels_take_them(tmp_path: Path, kind: str) -> None:
    frame = season_of(kind, 300)
    write_extract(tmp_path, frame)
    of_all = Window(start=START, end=NOW)
    read = view_of(
        load_frame(tmp_path, columns=COLUMNS),
        model="hematocrit",
        filters=Filters(),
        window=of_all,
        now=NOW,
        manifests={"3d4e5f": manifest_of(kind)},
    )
    at_hand = replace(view_of_kind(kind, frame), resamples=read.resamples)
    assert in_short(read).tables == in_short(at_hand).tables
    assert in_short(read).figures


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_bundle_panels_of_such_models_do_not_break(kind: str) -> None:
    seen = view_of_kind(kind)
    bare = View(**{**vars(seen), "manifests": {}})
    assert all(panel.said or panel.missing or panel.figures for tab in TABS for panel in panels_of(bare, tab))


def test_numbers_that_are_all_one_too_high_are_off_by_one_and_have_a_slope_of_one() -> None:
    observed = np.linspace(8.0, 16.0, 60)
    view = view_of_kind("numbers", answered(some(60), "numbers", observed[:, np.newaxis] + 1.0, observed))
    panel = in_short(view)
    assert panel.said[0] == "Mean absolute error 1.00 (1.00 to 1.00) g/dL; on held-out rows 0.80 (0.70 to 0.90)."
    assert panel.said[1] == "On average 1.00 (1.00 to 1.00) g/dL too high."
    assert "Slope 1.000 (1.000 to 1.000), intercept \u22121.00" in calibration(view).said[0]
    by_size = discrimination(view)
    assert by_size.title == "Error by size"
    # Of 60 rows there are 3 bins of 20 by what was predicted, and as many by what was observed.
    assert [row[1] for row in by_size.tables[0].table.rows] == [20, 20, 20]
    assert {row[2] for row in by_size.tables[0].table.rows} == {"1.00 (1.00 to 1.00)"}
    assert at_thresholds(view).missing


def test_an_error_that_grows_is_said_to_lie_above_what_the_bundle_says() -> None:
    frame = season_of("numbers")
    late = frame["received_at"] > pd.Timestamp("2015-03-01", tz="UTC")
    worse = frame.assign(score=frame["score"] + np.where(late, 3.0, 0.0))
    assert "above the whole interval of the retrospective" in over_time(view_of_kind("numbers", worse)).said[0]
    assert "above" not in over_time(view_of_kind("numbers", frame)).said[0]


def test_the_confusion_of_classes_counts_packets_by_what_happened_and_by_the_likeliest() -> None:
    likeliest, happened = np.array([0, 1, 1, 2, 2, 0] * 5), np.array([0, 0, 1, 2, 2, 2] * 5)
    answers = np.full((30, 3), 0.25)
    answers[np.arange(30), likeliest] = 0.5
    panel = at_thresholds(view_of_kind("classes", answered(some(30), "classes", answers, happened.astype(float))))
    # Six packets five times over: low, normal and high, in the rule's order.
    assert panel.tables[0].table.rows == (("low", 5, 5, 0), ("normal", 0, 5, 0), ("high", 5, 0, 10))
    assert "right in 66.7" in panel.said[0]


def test_each_class_stands_beside_what_the_bundle_says_of_that_class() -> None:
    panel = in_short(view_of_kind("classes"))
    assert "on held-out rows 0.800 (0.780 to 0.820)" in panel.said[0]
    assert {row[-1] for row in panel.tables[1].table.rows} == {"0.800 (0.750 to 0.850)"}
    assert [mark.name for mark in panel.figures[0].marks] == ["prospective", "retrospective"]
    assert "Of the headline, low." in over_time(view_of_kind("classes")).notes


def test_each_label_has_its_own_auroc_and_curve() -> None:
    # hematocrit is told apart without an error; of hemoglobin, 0.8 does not outscore 0.85 in one of four pairs.
    labels = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]] * 10)
    answers = np.array([[0.1, 0.9], [0.9, 0.8], [0.2, 0.85], [0.8, 0.1]] * 10)
    view = view_of_kind("labels", answered(some(40), "labels", answers, labels))
    rows = cells(in_short(view), 1)
    assert [str(rows[name][1]).split(" ")[0] for name in ("hematocrit", "hemoglobin")] == ["1.000", "0.750"]
    curves = [mark.name for mark in discrimination(view).figures[0].marks if isinstance(mark, Line)]
    assert curves[1:] == ["hematocrit", "hemoglobin"]
    assert len([mark for mark in calibration(view).figures[0].marks if isinstance(mark, Points)]) == 2


def test_packets_of_a_version_with_other_outputs_are_left_out() -> None:
    frame = season_of("classes")
    frame["outputs"] = [
        None if each is None else (each if place % 2 else [("other", 1.0)])
        for place, each in enumerate(frame["outputs"])
    ]
    whole, half = (in_short(view_of_kind("classes", each)).said[1] for each in (season_of("classes"), frame))
    counted = [int(each.split("Measured on ")[1].split(" ")[0].replace(",", "")) for each in (whole, half)]
    assert counted[1] == pytest.approx(counted[0] / 2, rel=0.1)


@pytest.mark.parametrize(("kind", "measure"), [("classes", "AUROC"), ("labels", "AUROC"), ("numbers", "Mean absolute")])
def test_groups_are_held_against_everybody_by_the_models_main_figure(kind: str, measure: str) -> None:
    panel = subgroups(view_of_kind(kind))
    assert panel.figures[0].title.startswith(measure)
    names = [named.caption for named in panel.tables]
    assert names[:3] == ["By sex", "By age", "By race"]


def test_an_effect_on_a_number_is_told_in_its_unit() -> None:
    assert "g/dL in arm" not in effect(view_of_kind("classes")).said[0]
    assert "g/dL, p = " in effect(view_of_kind("numbers")).said[0]


def test_no_axis_of_numbers_ends_at_what_one_patient_had() -> None:
    shown = view_of_kind("numbers")
    seen = shown.packets["label_value"].dropna()
    for figure in distributions(shown).figures:
        assert figure.x.low is not None
        assert figure.x.high is not None
        assert figure.x.low < seen.min()
        assert figure.x.high > seen.max()
        assert (figure.x.low, figure.x.high) == (round(figure.x.low), round(figure.x.high))


def test_a_jump_of_a_number_is_told_in_its_unit_and_drawn_beside_its_axis() -> None:
    frame = season_of("numbers").assign(threshold=12.0)
    shown = at_the_threshold(view_of_kind("numbers", frame))
    assert "g/dL" in shown.said[0]
    assert shown.figures[0].y.title == "Outcome, mean (g/dL)"
