"""What the nightly rules are held against is what the extract holds, and what the panels say."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from deployr_core.bootstrap import Interval
from deployr_core.bundle import MANIFEST_FILE, Estimate
from deployr_core.monitoring.alert_rules import Rules
from deployr_core.monitoring.alerting import Verdict
from deployr_core.monitoring.alerting_statistics import NAMES, of_figures
from deployr_core.monitoring.drift import Drift
from deployr_core.monitoring.drift_alarm import DriftAlarm, DriftLook
from deployr_core.monitoring.drift_reference import ReferencePeriod
from deployr_dash.alert_figures import WINDOW, measured, models_of
from deployr_dash.loading import load_frame
from deployr_dash.panels.panel import View, Window
from deployr_dash.panels.trial_design import trial_health
from deployr_dash.parts import MODELS, PACKETS
from deployr_dash.references import write_reference
from deployr_dash.served import load_served
from tests.unit.deployr_dash.made_up import NOW, START, packets, write_extract
from tests.unit.deployr_dash.other_targets import manifest_of, season_of

WEEK = timedelta(weeks=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("extract") / "monitor"
    write_extract(made, packets())
    window = Window(start=START + 6.5 * WEEK, end=START + 8.5 * WEEK)
    rows, version, digest = load_served(made, model="hematocrit", window=window, version="3d4e5f")
    write_reference(made, ReferencePeriod.of(rows, model_id="hematocrit", version=version, bundle_sha256=digest))
    return made


def test_figures_are_of_four_weeks_and_of_labels_that_became_ripe_in_them(folder: Path) -> None:
    found = measured(folder, model="hematocrit", rules=Rules(), looks=(), now=NOW).figures
    frame = load_frame(folder)
    lately = frame["received_at"] >= pd.Timestamp(NOW - WINDOW)
    assert found.scored == int((lately & (frame["kind"] == "scored")).sum())
    ripened = (frame["label_ripe_at"] >= pd.Timestamp(NOW - WINDOW)) & (frame["label_ripe_at"] < pd.Timestamp(NOW))
    counts = ripened & (frame["kind"] == "scored") & (frame["label_kind"] == "observed") & frame["score"].notna()
    labels, scores = frame.loc[counts, "label_value"].to_numpy(float), frame.loc[counts, "score"].to_numpy(float)
    assert (found.positives, found.negatives) == (int(labels.sum()), int((1 - labels).sum()))
    assert isinstance(found.auroc, Interval)
    assert isinstance(found.calibration, Interval)
    won = (scores[labels == 1][:, np.newaxis] > scores[labels == 0]).mean()
    assert found.auroc.value == pytest.approx(won, abs=1e-3)
    assert found.calibration.value == pytest.approx((scores - labels).mean())
    assert found.stated is not None
    due = ripened & (frame["kind"] == "scored") & (frame["label_ripe_at"] < pd.Timestamp(NOW - timedelta(days=3)))
    assert (found.overdue.overdue, found.overdue.ripe) == (
        int((due & frame["label_kind"].isna()).sum()),
        int(due.sum()),
    )


def test_labels_of_the_version_before_are_not_mixed_with_those_of_the_one_that_answers_now(tmp_path: Path) -> None:
    frame = packets()
    since = pd.Timestamp(NOW - timedelta(days=10))
    write_extract(tmp_path / "own", frame.assign(version=np.where(frame["received_at"] < since, "0a1b2c", "3d4e5f")))
    found = measured(tmp_path / "own", model="hematocrit", rules=Rules(), looks=(), now=NOW).figures
    ripened = frame["label_ripe_at"] < pd.Timestamp(NOW)
    counts = ripened & (frame["received_at"] >= since) & (frame["label_kind"] == "observed")
    labels = frame.loc[counts, "label_value"].to_numpy(float)
    assert (found.positives, found.negatives) == (int(labels.sum()), int((1 - labels).sum()))
    # What is overdue is overdue of whichever version.
    assert found.overdue.ripe > found.positives + found.negatives


def test_trial_and_advisories_are_counted(folder: Path) -> None:
    found = measured(folder, model="hematocrit", rules=Rules(), looks=(), now=NOW).figures
    frame = load_frame(folder)
    lately = frame.loc[frame["received_at"] >= pd.Timestamp(NOW - WINDOW)]
    shown = lately.loc[lately["shown_at"].notna()]
    assert found.shown == len(shown)
    assert isinstance(found.overridden, Interval)
    assert found.overridden.value == pytest.approx((shown["response"] == "overridden").mean())
    assert isinstance(found.burden, Interval)
    assert found.burden.value == pytest.approx(len(shown) / 28)
    earlier = frame["received_at"] >= pd.Timestamp(NOW - 2 * WINDOW)
    before = frame.loc[earlier & (frame["received_at"] < pd.Timestamp(NOW - WINDOW))]
    assert found.burden_before == pytest.approx(before["shown_at"].notna().sum() / 28)
    units = frame.loc[frame["eligible"].fillna(False) & (frame["kind"] == "scored")].drop_duplicates("unit_code")
    assert found.sample_ratio is not None
    assert sum(found.sample_ratio.counts.values()) == len(units)


def test_units_without_an_arm_count_in_no_arm_as_on_the_panel(folder: Path, tmp_path: Path) -> None:
    changed = packets()
    # Of half of all units the first packet holds no arm, as of a version before the trial's.
    first = ~changed.duplicated("unit_code") & (changed["unit_code"] % 2 == 0)
    changed.loc[first, ["arm", "p_arm"]] = None
    write_extract(tmp_path / "own", changed)
    found = measured(tmp_path / "own", model="hematocrit", rules=Rules(), looks=(), now=NOW).figures
    frame = load_frame(tmp_path / "own", since=NOW - 400 * timedelta(days=1))
    view = View(
        model_id="hematocrit",
        packets=frame,
        before=frame.iloc[:0],
        window=Window(start=START, end=NOW),
        now=NOW,
        manifests={},
        resamples=20,
    )
    rows = trial_health(view).tables[0].table.rows
    assert found.sample_ratio is not None
    assert {row[0]: row[1] for row in rows} == dict(found.sample_ratio.counts)


def test_the_look_at_drift_is_given_back_and_the_next_night_confirms_it(folder: Path, tmp_path: Path) -> None:
    changed = packets()
    lately = (changed["received_at"] >= pd.Timestamp(NOW - WINDOW)) & changed["score"].notna()
    changed.loc[lately, "score"] = 0.5 + changed.loc[lately, "score"] / 2
    shutil.copytree(folder, tmp_path / "monitor")
    shutil.rmtree(tmp_path / "monitor" / PACKETS)
    write_extract(tmp_path / "monitor", changed, with_bundles=False)

    def drift_after(*looks: DriftLook) -> tuple[DriftAlarm, DriftLook]:
        found = measured(tmp_path / "monitor", model="hematocrit", rules=Rules(), looks=looks, now=NOW)
        assert isinstance(found.figures.drift, DriftAlarm)
        assert found.look is not None
        return found.figures.drift, found.look

    first, look = drift_after()
    assert not first.raised
    # The same night again confirms nothing.
    assert not drift_after(look)[0].raised
    assert drift_after(msgspec.structs.replace(look, until=look.until - timedelta(days=1)))[0].raised


def test_without_a_reference_period_drift_says_how_to_make_one(tmp_path: Path) -> None:
    write_extract(tmp_path / "own", packets(n=400))
    found = measured(tmp_path / "own", model="hematocrit", rules=Rules(), looks=(), now=NOW)
    assert found.figures.drift == "No reference period: deployr monitor reference hematocrit"
    assert found.look is None


def test_the_held_out_auroc_of_classes_is_the_headlines_and_not_their_mean(tmp_path: Path) -> None:
    write_extract(tmp_path / "own", season_of("classes"))
    own = next((tmp_path / "own" / MODELS).iterdir()) / MANIFEST_FILE
    stated = manifest_of("classes")
    mean, headline = (Estimate(value=each, low=each - 0.01, high=each + 0.01) for each in (0.9, 0.7))
    figures = {"auroc": mean, "auroc.low": headline}
    evaluation = msgspec.structs.replace(stated.evaluation, figures=figures)
    own.write_bytes(msgspec.json.encode(msgspec.structs.replace(stated, evaluation=evaluation)))
    found = measured(tmp_path / "own", model="hematocrit", rules=Rules(), looks=(), now=NOW).figures
    assert found.stated is not None
    assert found.stated.value == 0.7


def test_packets_whose_bundle_is_not_at_hand_or_that_look_at_other_groups_miss_nothing(tmp_path: Path) -> None:
    frame = packets()
    lately = frame["received_at"] >= pd.Timestamp(NOW - WINDOW)

    def coverage_of(place: Path, present: list[list[tuple[str, int]] | None]) -> Sequence[Drift] | str:
        write_extract(place, frame.assign(features_present=pd.Series(present)))
        return measured(place, model="hematocrit", rules=Rules(), looks=(), now=NOW).figures.coverage

    def rows(of_lately: list[tuple[str, int]] | None) -> list[list[tuple[str, int]] | None]:
        usual = [("labs", 3), ("orders", 1)]
        return [of_lately if late else usual for late in lately]

    # The newest version looks at no orders, and labs are missing from every packet of it.
    found = coverage_of(tmp_path / "other", rows([("labs", 0)]))
    assert not isinstance(found, str)
    assert [(each.name, each.share_before, each.share_now) for each in found] == [("labs", 1.0, 0.0)]
    # Of one in ten packets lately nobody knows what they saw.
    some = [
        None if late and place % 10 == 0 else each
        for place, (late, each) in enumerate(zip(lately, rows([("labs", 3), ("orders", 1)]), strict=True))
    ]
    found = coverage_of(tmp_path / "unknown", some)
    assert not isinstance(found, str)
    assert {each.share_now for each in found} == {1.0}
    assert "the bundle is not at hand" in str(coverage_of(tmp_path / "none", rows(None)))


def test_every_rule_can_be_told_of_an_extract_and_of_one_packet(folder: Path, tmp_path: Path) -> None:
    write_extract(tmp_path / "one", packets(n=1, trial=False))
    for place in (folder, tmp_path / "one"):
        assert models_of(place) == ("hematocrit",)
        figures = measured(place, model="hematocrit", rules=Rules(), looks=(), now=NOW).figures
        found = list(of_figures(figures, Rules()))
        assert {each.rule for each in found} >= set(NAMES) - {"sample-ratio"}
    assert not [each for each in found if each.verdict is Verdict.FIRING]
