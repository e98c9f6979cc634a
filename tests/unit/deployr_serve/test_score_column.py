from __future__ import annotations

import json
import uuid

import msgspec
import pytest

from deployr_core.packet import Contribution, Failed
from deployr_serve.core.errors import EmrRefused, InvalidScore
from deployr_serve.core.explain import explained
from deployr_serve.core.policy import Policies
from deployr_serve.outputs.score_column import MOST_FEATURES, emr_names, render_score_column
from mock_emr.scores import Feature, Score, score_in

PLAIN = Policies().of("hematocrit")


@pytest.fixture
def render(bundle):
    def make(packet, *, delivery_id="p01.score-column"):
        return render_score_column(packet, bundle, policy=PLAIN, namespace="SHC", delivery_id=delivery_id)

    return make


def test_the_body_is_the_wrapped_one_with_values_as_strings(render, packet_of):
    assert json.loads(render(packet_of()).body) == {
        "result": {
            "exit_code": "0",
            "stdout": [""],
            "stderr": [""],
            "results": {
                "EntityId": [{"ID": "42", "Type": "CSN"}],
                "ScoreDisplayed": "HCT",
                "PredictiveContext": {},
                "OutputType": "5",
                "Outputs": {"Output1": {"Scores": {"HCT": {"Values": ["75"]}}, "Features": {}}},
                "Raw": {},
            },
        },
        "messages": [],
    }


def test_an_emr_that_shares_no_code_with_us_reads_the_score_from_it(render, packet_of):
    assert score_in(render(packet_of()).body) == Score(csn="42", name="HCT", value="75")


def test_the_query_names_the_model_and_a_job_that_is_the_same_for_the_same_delivery(render, packet_of):
    write = render(packet_of())
    assert write.model_id == "SHC.HCT@1"
    assert str(uuid.UUID(write.job_id)) == write.job_id
    assert render(packet_of()).job_id == write.job_id
    assert render(packet_of(), delivery_id="p02.score-column").job_id != write.job_id


def test_nothing_of_the_patient_is_in_the_query_or_the_repr(render, packet_of):
    packet = packet_of(patient_id="CANARY", order_id="CANARY")
    scored = msgspec.structs.replace(packet.outcome, entity_id="CANARY")
    write = render(msgspec.structs.replace(packet, outcome=scored))
    assert "CANARY" not in write.model_id + write.job_id + repr(write)


def test_a_score_without_a_contact_serial_number_has_no_row_to_go_to(render, packet_of):
    packet = packet_of()
    with pytest.raises(EmrRefused, match="contact serial number"):
        render(msgspec.structs.replace(packet, outcome=msgspec.structs.replace(packet.outcome, entity_id=None)))


def test_what_was_not_scored_is_never_written(render, packet_of):
    with pytest.raises(EmrRefused):
        render(packet_of(outcome=Failed(reason="emr-timeout", retryable=True)))


def results_of(write):
    return json.loads(write.body)["result"]["results"]


@pytest.fixture
def explained_packet(packet_of, bundle):
    """Give the packet of a woman with one hematocrit of 30 %: 3 of the 4 like her were positive, 4 of all 8."""
    packet = packet_of()
    vector = msgspec.structs.replace(
        packet.outcome.vector, spec_sha256=bundle.manifest.spec_sha256, indices=(0, 2, 3), values=(1.0, 1.0, 30.0)
    )
    scored = msgspec.structs.replace(packet.outcome, vector=vector)
    return msgspec.structs.replace(packet, outcome=explained(scored, bundle))


def test_the_concepts_stand_beside_the_score_with_the_values_that_they_were_made_of(render, explained_packet):
    results = results_of(render(explained_packet))
    assert results["Outputs"]["Output1"]["Features"] == {"hematocrit": {"Contributions": ["0.25"]}}
    assert results["Raw"] == {"hematocrit": {"Values": ["1", "30"]}}


def test_an_emr_that_shares_no_code_with_us_takes_the_features(render, explained_packet):
    made_of = Feature(name="hematocrit", contribution="0.25", values=("1", "30"))
    assert score_in(render(explained_packet).body) == Score(csn="42", name="HCT", value="75", features=(made_of,))


def test_a_concept_that_was_absent_has_the_value_0(render, explained_packet):
    scored = explained_packet.outcome
    others = (*scored.contributions, Contribution(concept="Medication RxNorm 310325", value=-1e-9))
    packet = msgspec.structs.replace(explained_packet, outcome=msgspec.structs.replace(scored, contributions=others))
    results = results_of(render(packet))
    assert results["Raw"]["Medication_RxNorm_310325"] == {"Values": ["0"]}
    assert results["Outputs"]["Output1"]["Features"]["Medication_RxNorm_310325"] == {"Contributions": ["0"]}


def test_only_the_largest_concepts_are_written(render, explained_packet):
    many = tuple(Contribution(concept=f"c{n}", value=1.0 / n) for n in range(1, 50))
    outcome = msgspec.structs.replace(explained_packet.outcome, contributions=many)
    features = results_of(render(msgspec.structs.replace(explained_packet, outcome=outcome)))["Outputs"]["Output1"]
    assert list(features["Features"]) == [f"c{n}" for n in range(1, MOST_FEATURES + 1)]


def test_names_are_safe_for_the_emr_and_each_is_there_once():
    concepts = ("Diagnosis ICD-10-CM I48", "Diagnosis ICD 10 CM I48", "<b>", "%", "§", "x" * 99)
    assert emr_names(concepts) == (
        "Diagnosis_ICD_10_CM_I48",
        "Diagnosis_ICD_10_CM_I48_2",
        "b",
        "Concept",
        "Concept_2",
        "x" * 36,
    )


def test_a_zero_with_a_sign_is_not_written(render, packet_of):
    packet = packet_of()
    with pytest.raises(InvalidScore):
        render(msgspec.structs.replace(packet, outcome=msgspec.structs.replace(packet.outcome, score=-0.0)))


def test_what_is_no_score_is_not_explained(bundle, received):
    assert explained(received, bundle) is received
