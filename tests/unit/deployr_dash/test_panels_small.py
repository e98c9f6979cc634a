"""All models at a glance, and one packet."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from deployr_core.metrics import auroc
from deployr_core.packet import (
    Contribution,
    Failed,
    FetchRecord,
    InferencePacket,
    ModelRef,
    Scored,
    StoredVector,
    Subject,
    Trigger,
)
from deployr_dash.loading import load_features
from deployr_dash.overview import overview
from deployr_dash.panels.glance import glances
from deployr_dash.panels.one_packet import calls, contributions, features, timeline
from deployr_dash.panels.panel import Window
from tests.unit.deployr_dash.made_up import NOW, START, manifest, packets, write_extract
from tests.unit.deployr_dash.other_targets import season_of

SEASON = packets(600)
WINDOW = Window(start=START, end=NOW)


def a_packet(outcome: Scored | Failed, *fetches: FetchRecord) -> InferencePacket:
    return InferencePacket(
        packet_id="p1",
        site="site",
        environment="test",
        model=ModelRef(model_id="hematocrit", version="3d4e5f", bundle_sha256="d" * 64),
        trigger=Trigger(
            channel="json", correlation_id="c", request_sha256="0" * 64, received_at=START, event_time=START
        ),
        subject=Subject(patient_id="patient-marked"),
        as_of=START,
        outcome=outcome,
        started_at=START,
        updated_at=START,
        fetches=fetches,
    )


def scored(*contributed: Contribution) -> Scored:
    vector = StoredVector(spec_sha256="5" * 64, size=3, indices=(), values=())
    return Scored(score=0.4, vector=vector, coverage={}, entity_id=None, contributions=contributed)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_of_what_is_no_single_outcome_a_glance_gives_no_share_with_it(tmp_path: Path, kind: str) -> None:
    write_extract(tmp_path, season_of(kind))
    [line] = glances(overview(tmp_path), WINDOW, {}, now=NOW)
    assert line.labels > 0
    assert (line.prevalence, line.auroc) == (None, None)


def test_a_glance_counts_what_the_packets_say(tmp_path: Path) -> None:
    write_extract(tmp_path, SEASON)
    [line] = glances(overview(tmp_path), WINDOW, {"hematocrit": manifest()}, now=NOW)
    seen = SEASON.loc[SEASON["label_kind"] == "observed"]
    assert (line.packets, line.labels, line.versions) == (600, len(seen), 2)
    assert line.scored_share == pytest.approx((SEASON["kind"] == "scored").mean())
    assert line.prevalence == pytest.approx(seen["label_value"].mean())
    assert line.p95_ms == pytest.approx(SEASON["latency_ms"].quantile(0.95), rel=0.03)
    # Scores are in steps of .02: of what is in one step, half is taken to be in order.
    assert line.auroc == pytest.approx(
        auroc(seen["label_value"].to_numpy(float), seen["score"].to_numpy(float)), abs=0.01
    )
    assert sum(line.volume.marks[0].heights) == 600  # type: ignore[union-attr]


def test_a_model_that_fell_silent_or_got_worse_is_to_be_looked_at(tmp_path: Path) -> None:
    quiet = packets(400, days=60)
    write_extract(tmp_path, quiet.assign(kind="scored", reason=None, deliveries_dead=0))
    [line] = glances(overview(tmp_path), WINDOW, {}, now=NOW)
    [watched] = line.watch
    assert watched.startswith("silent for 30")
    [dead] = glances(overview(tmp_path), Window(start=START, end=START + timedelta(days=60)), {}, now=NOW)
    assert dead.watch == ()


def test_a_model_without_packets_in_the_window_has_no_line(tmp_path: Path) -> None:
    write_extract(tmp_path, SEASON)
    later = overview(tmp_path, since=NOW.date())
    assert glances(later, WINDOW, {}, now=NOW) == []


def test_a_timeline_is_in_order_and_names_no_patient() -> None:
    row = SEASON.loc[SEASON["response"] == "accepted"].iloc[0]
    shown = timeline(row)
    instants = [str(each[0]) for each in shown.tables[0].table.rows]
    assert instants == sorted(instants)
    assert ("response", "accepted") in shown.tables[1].table.rows
    assert str(row["patient_code"]) not in [str(each[1]) for each in shown.tables[1].table.rows]


def test_features_are_named_by_the_bundles_declaration(tmp_path: Path) -> None:
    write_extract(tmp_path, SEASON)
    found = load_features(tmp_path, model="hematocrit", version="3d4e5f")
    row = SEASON.loc[(SEASON["version"] == "3d4e5f") & (SEASON["kind"] == "scored")].iloc[-1]
    assert features(found, row).tables[0].table.rows == (
        ("age", "age/[18,40)", 1.0),
        ("sex", "sex/female", 1.0),
    )
    failed = SEASON.loc[SEASON["kind"] == "failed"].iloc[0]
    assert "with a score" in (features(found, failed).missing or "")


def test_contributions_are_drawn_largest_first_by_their_sign() -> None:
    shown = contributions(
        a_packet(scored(Contribution(concept="age", value=0.1), Contribution(concept="hemoglobin", value=-0.3)))
    )
    assert shown.said == ("Most moved by hemoglobin: \u22120.300.",)
    assert shown.figures[0].y.names == ("hemoglobin", "age")
    assert "cannot be taken apart" in (contributions(a_packet(scored())).missing or "")


def test_calls_are_drawn_from_the_first_one_on() -> None:
    first = FetchRecord(resource="Patient", resources=1, pages=1, milliseconds=20.0, name="patient", started_at=START)
    second = FetchRecord(
        resource="Observation",
        resources=90,
        pages=2,
        milliseconds=50.0,
        name="labs",
        started_at=START + timedelta(milliseconds=5),
    )
    shown = calls(a_packet(scored(), first, second))
    [bars] = shown.figures[0].marks
    assert (bars.bases, bars.heights) == ((0.0, 5.0), (20.0, 50.0))  # type: ignore[union-attr]
    assert calls(a_packet(Failed(reason="deadline", retryable=True))).missing


def test_what_is_shown_of_a_packet_holds_no_id_of_a_patient() -> None:
    packet = a_packet(scored(Contribution(concept="age", value=0.1)))
    assert "patient-marked" not in repr((contributions(packet), calls(packet)))
