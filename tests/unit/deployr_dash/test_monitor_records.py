"""A packet with what belongs to it is one row, which says what happened and nothing of whom."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pyarrow as pa
import pytest

from deployr_core.bundle import MANIFEST_FILE, parse_manifest
from deployr_core.codes import OMB_RACE_ETHNICITY
from deployr_core.declared import EdgeBins, MappedCode, MappedCodes
from deployr_core.facts import Sex
from deployr_core.features import AgeGroup, EthnicityGroup, FeatureSpec, LabGroup, RaceGroup, SexGroup
from deployr_core.label_rules import InHospitalMortality
from deployr_core.layout import layout_of
from deployr_core.packet import (
    Abstained,
    Attempt,
    Censored,
    Decision,
    DeliveryState,
    Event,
    EventKind,
    FetchRecord,
    Label,
    Mode,
    Observed,
    Scored,
    StoredVector,
)
from deployr_core.patient_groups import PatientGroups, Payer
from deployr_core.trial import Assignment, AssignmentSource, RandomizationUnit, Showing
from deployr_core.wedge import WedgePlace
from deployr_dash.frames import PACKETS, PACKETS_SCHEMA, expect_columns
from deployr_dash.records import asked_at, packet_row, told_by, unit_hash_of
from deployr_serve.core.ports import Belongings


@pytest.fixture
def told(bundle):
    return told_by(bundle.manifest, bundle.spec)


@pytest.fixture
def row_of(told):
    def make(packet, *, told=told, patient_code=7, unit_code=None, clinician_code=None, **belonging):
        return packet_row(
            packet,
            Belongings(**belonging),
            told=told,
            patient_code=patient_code,
            unit_code=unit_code,
            clinician_code=clinician_code,
        )

    return make


def scored_by(spec_sha256="5" * 64, *, indices=(0, 2), decision=None, **changes):
    vector = StoredVector(spec_sha256=spec_sha256, size=6, indices=indices, values=(1.0,) * len(indices))
    return Scored(score=0.5, vector=vector, coverage={}, entity_id="CSN-1", decision=decision, **changes)


def label_of(value, now, *, rule="lab-component", **changes):
    outcome = Observed(value=value, at=now, known_at=now + timedelta(hours=1), source_id="lab-1", **changes)
    return Label(label_id=f"p01.{rule}", packet_id="p01", rule=rule, outcome=outcome, attached_at=now)


def event_of(kind, at, **changes):
    return Event(event_id=f"p01.{kind}.{at}", packet_id="p01", kind=kind, at=at, **changes)


def test_a_row_has_only_columns_that_the_schema_has_and_arrow_takes_it(row_of, packet_of, bundle):
    row = row_of(packet_of(outcome=scored_by(bundle.spec.digest())))
    assert set(row) <= set(PACKETS_SCHEMA.names)
    [back] = pa.Table.from_pylist([row], schema=PACKETS_SCHEMA).to_pylist()
    assert {name: back[name] for name in ("packet_id", "score", "sex")} == {
        "packet_id": "p01",
        "score": 0.5,
        "sex": "female",
    }


def test_every_column_says_what_it_means_and_none_names_a_person():
    assert all(column.meaning for column in PACKETS)
    forbidden = {
        "patient_id",
        "encounter_id",
        "order_id",
        "entity_id",
        "patient_hash",
        "clinician_hash",
        "comment",
        "caller",
        "source_id",
    }
    assert not forbidden & set(PACKETS_SCHEMA.names)
    with pytest.raises(ValueError, match="got patient_id"):
        expect_columns(["score", "patient_id"])


def test_a_clinician_is_a_number_and_a_patients_groups_are_words(row_of, packet_of):
    groups = PatientGroups(language="es", insurance=Payer.SELF_PAY)
    row = row_of(packet_of(clinician_hash="CANARY", patient_groups=groups), clinician_code=5)
    assert (row["clinician_code"], row["language"], row["insurance"]) == (5, "es", "self-pay")
    assert "CANARY" not in str(row)
    older = row_of(packet_of())
    assert (older["clinician_code"], older.get("language"), older.get("insurance")) == (None, None, None)


def test_a_place_in_a_stepped_wedge_is_told_and_other_trials_have_none(row_of, packet_of):
    assignment = Assignment(
        trial_id="hct",
        version=1,
        unit=RandomizationUnit.DEPARTMENT,
        unit_hash="CANARY",
        strata=(),
        arm="control",
        probability=0.25,
        source=AssignmentSource.DRAWN_ORDER,
        wedge=WedgePlace(cluster=3, period=2),
    )
    decision = Decision(
        mode=Mode.TRIAL, advise=False, why="control", policy_sha256="c" * 64, eligible=True, assignment=assignment
    )
    row = row_of(packet_of(outcome=scored_by(decision=decision)), unit_code=4)
    told = ("wedge_cluster", "wedge_period", "p_arm", "unit", "unit_code")
    assert tuple(row[name] for name in told) == (3, 2, 0.25, "department", 4)
    other = msgspec.structs.replace(decision, assignment=msgspec.structs.replace(assignment, wedge=None))
    assert "wedge_period" not in row_of(packet_of(outcome=scored_by(decision=other)))


def test_a_model_elsewhere_is_named_as_it_called_itself(row_of, packet_of):
    assert row_of(packet_of(outcome=scored_by(answered_by="sepsis-net 1.2.0")))["answered_by"] == "sepsis-net 1.2.0"
    assert row_of(packet_of(outcome=scored_by()))["answered_by"] is None


def test_a_packet_that_is_being_worked_on_has_neither_end_nor_latency(row_of, packet_of, received, now):
    row = row_of(packet_of(outcome=received))
    assert (row["kind"], row.get("ended_at"), row.get("latency_ms"), row.get("score")) == ("received", None, None, None)
    ended = row_of(packet_of(updated_at=now + timedelta(milliseconds=1250)))
    assert (ended["kind"], ended["latency_ms"]) == ("scored", 1250.0)


def test_what_was_not_scored_says_why(row_of, packet_of):
    row = row_of(packet_of(outcome=Abstained(reason="stale")))
    assert (row["kind"], row["reason"]) == ("abstained", "stale")
    # Without a score there is nothing to label.
    assert "label_ripe_at" not in row


def test_a_retried_packet_is_still_of_when_it_was_asked_for_first(packet_of, now):
    attempt = Attempt(started_at=now - timedelta(days=40), ended_at=now, reason="emr-timeout")
    assert asked_at(packet_of(earlier_attempts=(attempt,))) == now - timedelta(days=40)
    assert asked_at(packet_of()) == now


def test_searches_run_beside_each_other_and_their_span_is_counted_once(row_of, packet_of, now):
    def fetch(name, start_ms, milliseconds, requests=1):
        started = now + timedelta(milliseconds=start_ms)
        return FetchRecord(
            resource="X",
            resources=1,
            pages=1,
            milliseconds=milliseconds,
            name=name,
            started_at=started,
            requests=requests,
        )

    row = row_of(packet_of(fetches=(fetch("labs", 0, 100.0, 3), fetch("drugs", 50, 20.0), fetch("labs", 110, 40.0))))
    assert (row["emr_calls"], row["emr_ms"], row["searches"]) == (5, 150.0, [("labs", 140.0), ("drugs", 20.0)])
    unknown = FetchRecord(resource="Patient", resources=1, pages=1, milliseconds=30.0)
    row = row_of(packet_of(fetches=(unknown, msgspec.structs.replace(unknown, milliseconds=70.0))))
    assert (row["emr_ms"], row["searches"]) == (70.0, [("Patient", 100.0)])
    assert row_of(packet_of())["emr_ms"] is None


@pytest.mark.parametrize(("shown", "chance", "p_shown"), [(True, 0.9, 0.9), (False, 0.75, 0.25)])
def test_the_chance_of_being_shown_is_told_whatever_was_decided(row_of, packet_of, shown, chance, p_shown):
    decision = Decision(
        mode=Mode.TRIAL,
        advise=shown,
        why="advised" if shown else "control",
        policy_sha256="c" * 64,
        threshold=0.3,
        band="high",
        eligible=True,
        assignment=Assignment(
            trial_id="hct",
            version=2,
            unit=RandomizationUnit.PATIENT,
            unit_hash="CANARY",
            strata=("ward-9",),
            arm="show",
            probability=0.5,
            source=AssignmentSource.KEYED_HASH,
        ),
        showing=Showing(shown=shown, above=True, explored=False, probability=chance),
    )
    packet = packet_of(outcome=scored_by(decision=decision))
    row = row_of(packet, unit_code=3)
    told = (
        "mode",
        "advised",
        "threshold",
        "band",
        "eligible",
        "trial_id",
        "trial_version",
        "arm",
        "p_arm",
        "unit_code",
    )
    assert [row[name] for name in told] == ["trial", shown, 0.3, "high", True, "hct", 2, "show", 0.5, 3]
    assert (row["shown_by_design"], row["p_shown"]) == (shown, p_shown)
    assert (row["unit"], row["stratum"]) == ("patient", "ward-9")
    assert unit_hash_of(packet) == "CANARY"
    assert "CANARY" not in str(row)
    assert unit_hash_of(packet_of()) is None


@pytest.mark.parametrize(("strata", "expected"), [((), None), (("ward-9", "Spanish"), "ward-9 | Spanish")])
def test_a_stratum_of_several_texts_stands_in_one_column_and_none_in_none(row_of, packet_of, strata, expected):
    decision = Decision(
        mode=Mode.TRIAL,
        advise=False,
        why="control",
        policy_sha256="c" * 64,
        assignment=Assignment(
            trial_id="hct",
            version=1,
            unit=RandomizationUnit.DEPARTMENT,
            unit_hash="CANARY",
            strata=strata,
            arm="control",
            probability=0.5,
            source=AssignmentSource.STORED,
        ),
    )
    row = row_of(packet_of(outcome=scored_by(decision=decision)))
    assert (row["unit"], row["stratum"]) == ("department", expected)


# -- who, as far as the model sees it


def demographic_spec():
    return FeatureSpec(
        schema_version=1,
        groups=(
            AgeGroup(bins=EdgeBins(edges=(18, 40, 65))),
            SexGroup(categories=(Sex.FEMALE, Sex.MALE)),
            RaceGroup(categories=("2106-3", "2054-5")),
            EthnicityGroup(
                categories=("any", "none"),
                grouping=MappedCodes(
                    name="simple",
                    sha256="0" * 64,
                    codes=(
                        MappedCode(OMB_RACE_ETHNICITY, "2135-2", "any"),
                        MappedCode(OMB_RACE_ETHNICITY, "2186-5", "none"),
                    ),
                ),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        # Four ages, two sexes, two races, two ethnicities: 0 to 3, 4 and 5, 6 and 7, 8 and 9.
        ((0, 4, 6, 8), ("0 to 17", "female", "White", "any")),
        ((2, 5, 7, 9), ("40 to 64", "male", "Black or African American", "none")),
        ((3, 6, 7), ("65 and over", "not recorded", "Several", "not recorded")),
    ],
)
def test_demographics_are_read_from_the_vector_by_the_declaration(row_of, packet_of, bundle, indices, expected):
    spec = demographic_spec()
    told = told_by(bundle.manifest, spec)
    row = row_of(packet_of(outcome=scored_by(spec.digest(), indices=indices)), told=told)
    assert (row["age_band"], row["sex"], row["race"], row["ethnicity"]) == expected


def test_a_model_without_a_group_says_nothing_of_it_and_neither_does_an_unknown_declaration(row_of, packet_of, bundle):
    row = row_of(packet_of(outcome=scored_by(bundle.spec.digest(), indices=())))
    assert row["sex"] == "not recorded"
    assert not {"age_band", "race", "ethnicity"} & set(row)
    other = row_of(packet_of(outcome=scored_by("6" * 64)))
    assert not {"sex", "features_present"} & set(other)


def test_features_are_counted_by_group_without_demographics(row_of, packet_of, bundle):
    names = layout_of(bundle.spec).names
    labs = next(group for group in bundle.spec.groups if isinstance(group, LabGroup))
    set_ones = tuple(i for i, name in enumerate(names) if name.startswith((f"{labs.name}/", "sex/female")))
    row = row_of(packet_of(outcome=scored_by(bundle.spec.digest(), indices=set_ones)))
    assert dict(row["features_present"]) == {"labs": 2, "problem_list": 0, "drugs": 0}


# -- what clinicians saw and did


def test_the_first_showing_and_the_first_answer_count(row_of, packet_of, now):
    events = (
        event_of(EventKind.SHOWN, now + timedelta(minutes=1)),
        event_of(EventKind.SHOWN, now),
        event_of(EventKind.OVERRIDDEN, now + timedelta(minutes=5), reason="too-late", comment="CANARY"),
        event_of(EventKind.ACCEPTED, now + timedelta(minutes=3)),
    )
    row = row_of(packet_of(), events=events)
    assert (row["shown_at"], row["response"], row["response_at"]) == (now, "accepted", now + timedelta(minutes=3))
    assert "CANARY" not in str(row)
    assert row_of(packet_of())["shown_at"] is None


def test_the_label_of_adherence_settles_what_the_answer_was(row_of, packet_of, now):
    late = event_of(EventKind.ACCEPTED, now + timedelta(days=9))
    none = label_of("no-response", now, rule="adherence")
    none = msgspec.structs.replace(none, outcome=msgspec.structs.replace(none.outcome, source_id=""))
    row = row_of(packet_of(), events=(late,), labels=(none,))
    assert (row["response"], row["response_at"]) == ("no-response", None)
    answered = label_of("overridden", now, rule="adherence", why="known-already")
    row = row_of(packet_of(), labels=(answered,))
    assert (row["response"], row["response_reason"], row["response_at"]) == ("overridden", "known-already", now)
    assert "label_kind" not in row


def test_deliveries_are_counted_by_state(row_of, packet_of, delivery_of):
    states = (DeliveryState.SENT, DeliveryState.SENT, DeliveryState.DEAD)
    deliveries = tuple(delivery_of(output=f"way-{i}", state=state) for i, state in enumerate(states))
    row = row_of(packet_of(), deliveries=deliveries)
    assert {state: row[f"deliveries_{state}"] for state in DeliveryState} == {
        "pending": 0,
        "sent": 2,
        "dead": 1,
        "superseded": 0,
        "expired": 0,
    }


# -- what happened


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        (1.0, "label_value", 1.0),
        ("low", "label_class", "low"),
        ({"wbc": 1.0, "hgb": 0.0}, "label_values", [("wbc", 1.0), ("hgb", 0.0)]),
    ],
)
def test_a_label_stands_in_the_column_of_its_kind(row_of, packet_of, now, value, column, expected):
    row = row_of(packet_of(), labels=(label_of(value, now),))
    assert (row["label_kind"], row["label_rule"], row[column]) == ("observed", "lab-component", expected)
    assert (row["label_at"], row["label_known_at"], row["label_attached_at"]) == (now, now + timedelta(hours=1), now)
    assert len({"label_value", "label_class", "label_values"} & set(row)) == 1


def test_a_censored_label_says_why(row_of, packet_of, now):
    label = msgspec.structs.replace(label_of(1.0, now), outcome=Censored(reason="died"))
    row = row_of(packet_of(), labels=(label,))
    assert (row["label_kind"], row["label_reason"], row.get("label_value")) == ("censored", "died", None)


def test_a_label_is_ripe_when_the_bundles_rule_says_so(row_of, packet_of, bundle, bundle_files, now):
    row = row_of(packet_of())
    # The rule's window is 24 hours.
    assert (row["label_rule"], row["label_ripe_at"]) == ("lab-component", now + timedelta(hours=24))
    assert row.get("label_kind") is None
    assert "label_ripe_at" not in row_of(packet_of(), told=None)
    manifest = parse_manifest(bundle_files[MANIFEST_FILE])
    task = msgspec.structs.replace(manifest.task, rule=InHospitalMortality())
    told = told_by(msgspec.structs.replace(manifest, task=task), bundle.spec)
    assert row_of(packet_of(), told=told)["label_ripe_at"] == now + timedelta(days=366)


def test_of_labels_by_several_rules_the_packets_own_one_counts(row_of, packet_of, now):
    ours = label_of(0.0, now)
    other = msgspec.structs.replace(label_of(1.0, now, rule="mortality"), attached_at=now + timedelta(days=1))
    assert row_of(packet_of(), labels=(ours, other))["label_value"] == 0.0
    # Whose rule is not known has the label that was attached last.
    assert row_of(packet_of(), labels=(ours, other), told=None)["label_value"] == 1.0
