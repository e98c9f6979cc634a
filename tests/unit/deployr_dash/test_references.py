"""Reference periods of an extract: made by the command, kept with their bundle, and what drift panels hold against."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deployr_cli.main import app
from deployr_core.monitoring.drift_alarm import drift_alarm
from deployr_core.monitoring.drift_reference import ReferenceInvalid, ReferenceOfAnotherBundle, ReferencePeriod
from deployr_dash.filters import Filters
from deployr_dash.loading import load_frame
from deployr_dash.panels.drift import drift, feature_drift
from deployr_dash.panels.panel import Panel, View, Window
from deployr_dash.references import read_reference, reference_file
from deployr_dash.served import NothingServed, load_served, served_days
from deployr_dash.views import COLUMNS, manifests_of, view_of, with_features
from tests.unit.deployr_dash.made_up import DIGEST, NOW, START, packets, write_extract

DAY = (NOW - START) / 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("extract") / "monitor"
    write_extract(made, packets())
    return made


def command(folder: Path, *arguments: str) -> Result:
    env: Mapping[str, str | None] = {name: None for name in os.environ if name.startswith("DEPLOYR_")}
    return CliRunner().invoke(app, ["monitor", "reference", "hematocrit", str(folder), *arguments], env=env)


@pytest.fixture(scope="module")
def reference(folder: Path) -> ReferencePeriod:
    """Make that of the second version, whose packets begin on day 45: of 10 days."""
    done = command(folder, "--from", "2015-02-15", "--to", "2015-02-24")
    assert done.exit_code == 0, done.output
    assert "hematocrit 3d4e5f, 2015-02-15 to 2015-02-24" in done.output
    found = read_reference(folder, DIGEST)
    assert found is not None
    return found


def view(folder: Path, filters: Filters) -> View:
    """Give the view of what came after the first days of the second version."""
    window = Window(start=START + 45 * DAY, end=NOW)
    seen = view_of(
        load_frame(folder, columns=COLUMNS),
        model="hematocrit",
        filters=filters,
        window=window,
        now=NOW,
        manifests=manifests_of(folder)["hematocrit"],
    )
    return with_features(seen, folder, filters=filters)


def notes(panel: Panel) -> str:
    return " ".join(panel.notes)


def test_the_command_keeps_what_a_version_answered_in_the_days_asked_for(
    folder: Path, reference: ReferencePeriod
) -> None:
    frame = load_frame(folder, columns=("version", "received_at", "patient_code"))
    own = frame.loc[
        (frame["version"] == "3d4e5f") & (frame["received_at"] >= "2015-02-15") & (frame["received_at"] < "2015-02-25")
    ]
    assert (reference.requests, reference.patients) == (len(own), own["patient_code"].nunique())
    assert reference.daily.sum() == len(own)


def test_without_days_it_is_the_versions_first_eight_weeks_or_all_there_are(folder: Path, tmp_path: Path) -> None:
    write_extract(tmp_path / "own", packets())
    assert served_days(folder, model="hematocrit") == (date(2015, 2, 15), date(2015, 3, 31))
    assert "2015-02-15 to 2015-03-31" in command(tmp_path / "own").output
    assert served_days(folder, model="hematocrit", version="0a1b2c") == (date(2015, 1, 1), date(2015, 2, 14))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "2015-02-30"), "--from: expected a day such as 2026-01-31"),
        (("--from", "2015-03-01", "--to", "2015-02-01"), "expected --to on or after --from"),
        (("--from", "2016-03-01", "--to", "2016-03-08"), "expected packets of hematocrit with a score"),
        (("--version", "another"), "expected packets of hematocrit with a score"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = command(folder, *arguments)
    assert done.exit_code != 0
    assert said in f"{done.output} {done.exception}"


def test_drift_panels_hold_against_the_reference_period_where_there_is_one(
    folder: Path, reference: ReferencePeriod
) -> None:
    assert reference.version == "3d4e5f"
    seen = view(folder, Filters())
    for panel in (drift(seen), feature_drift(seen)):
        assert "reference period of the version that answered last, 2015-02-15 to 2015-02-24" in notes(panel)
    assert drift(view(folder, Filters())).tables[0].table.rows


def test_of_a_cohort_they_hold_against_the_time_before(folder: Path, reference: ReferencePeriod) -> None:
    assert reference.until <= NOW
    seen = view(folder, Filters(cohort={"sex": "female"}))
    assert "Held against the time before the window" in notes(drift(seen))


def test_an_alarm_is_told_from_an_extract_and_its_reference_period(folder: Path, reference: ReferencePeriod) -> None:
    rows, version, digest = load_served(folder, model="hematocrit", window=Window(start=NOW - 28 * DAY, end=NOW))
    assert (version, digest) == ("3d4e5f", DIGEST)
    assert not drift_alarm(reference, rows).raised
    # Log odds that are higher by two are scores that are higher by up to .38.
    higher = replace(rows, scores=1 / (1 + np.exp(-2.0) * (1 / rows.scores - 1)))
    look = drift_alarm(reference, higher).look
    found = drift_alarm(reference, higher, [look] * 9)
    assert found.raised
    assert "scores" in found.why
    assert found.score_shift is not None
    assert 0.1 < found.score_shift < 0.38


def test_labels_that_are_not_due_do_not_count(folder: Path) -> None:
    rows, _, _ = load_served(folder, model="hematocrit", window=Window(start=NOW - 2 * DAY, end=NOW))
    assert rows.rows > 0
    assert not (rows.labels == rows.labels).any()


def test_without_a_score_there_is_nothing_to_be_told_from(folder: Path) -> None:
    with pytest.raises(NothingServed, match="expected packets of hematocrit with a score from 2016-01-01"):
        load_served(folder, model="hematocrit", window=Window(start=START + 365 * DAY, end=NOW + 365 * DAY))


def test_a_damaged_or_misplaced_reference_is_refused(folder: Path, reference: ReferencePeriod) -> None:
    place = reference_file(folder, "e" * 64)
    place.parent.mkdir()
    place.write_bytes(reference.to_json())
    with pytest.raises(ReferenceOfAnotherBundle):
        read_reference(folder, "e" * 64)
    place.write_bytes(b"{")
    with pytest.raises(ReferenceInvalid):
        read_reference(folder, "e" * 64)
    assert read_reference(folder, "f" * 64) is None
    assert replace(reference, version="2").to_json() != reference.to_json()
