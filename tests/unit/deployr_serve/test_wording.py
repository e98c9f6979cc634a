"""What people see of a score is decided in one place: the number, its decimals, the packed alert, and the words."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from deployr_core.packet import Decision, Mode
from deployr_core.postprocess import unpacked_alert
from deployr_core.trial import Arm, RandomizationUnit, Trial
from deployr_serve.core.errors import InvalidScore
from deployr_serve.core.policy import Advisory, Policy
from deployr_serve.outputs.communication import render_communication
from deployr_serve.outputs.declared import (
    CommunicationOutput,
    FlowsheetOutput,
    InBasketOutput,
    ObservationOutput,
    Recipient,
    SmartDataOutput,
)
from deployr_serve.outputs.document_reference import render_document_reference
from deployr_serve.outputs.event_record import event_record
from deployr_serve.outputs.flag import render_flag
from deployr_serve.outputs.flowsheet import render_flowsheet
from deployr_serve.outputs.in_basket import render_in_basket
from deployr_serve.outputs.observation import render_observation
from deployr_serve.outputs.risk_assessment import render_risk_assessment
from deployr_serve.outputs.score_column import render_score_column
from deployr_serve.outputs.smart_data import render_smart_data
from deployr_serve.outputs.vendor_target import VendorTarget, VendorUser
from deployr_serve.outputs.wording import lines, one_number

TARGET = VendorTarget(patient_id="E7", patient_id_type="EPI", csn="42")
USER = VendorUser(id="1", type="External")
ADVISORY = Advisory(headline="Hold the order: {score_percent}", detail="Look at the last result.\n\nThen decide.")
ARMS = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))


def policy_of(**changes):
    return Policy(**{"schema_version": 1, "model": "hematocrit", "mode": Mode.LIVE, "advisory": ADVISORY, **changes})


@pytest.fixture
def decided(packet_of):
    """Give a function that makes a packet about which it was decided whether to advise."""

    def make(*, advise=True, score=0.8734, **changes):
        decision = Decision(mode=Mode.LIVE, advise=advise, why="advised", policy_sha256="0" * 64, band="high")
        outcome = packet_of().outcome
        return packet_of(outcome=msgspec.structs.replace(outcome, score=score, decision=decision, **changes))

    return make


def number_of(packet_of, score, *, unit=None):
    outcome = msgspec.structs.replace(packet_of().outcome, score=score, value_unit=unit)
    return one_number(packet_of(outcome=outcome), policy_of(), output="score-column")


def rendered(packet, bundle, policy):
    """Give what every way out would send, by its name, with what a person or a rule reads of it."""
    manifest, common = bundle.manifest, {"policy": policy, "delivery_id": "p01.x"}
    to_us = {"policy": policy, "target": TARGET, "user": USER}
    column = render_score_column(packet, bundle, namespace="N", **common)
    flowsheet = render_flowsheet(packet, manifest, declared=FlowsheetOutput(rows={"hematocrit": "9"}), **to_us)
    smart_data = render_smart_data(packet, manifest, declared=SmartDataOutput(elements={"hematocrit": "D"}), **to_us)
    declared = InBasketOutput(recipients=(Recipient(id="P77"),), sender_id="D")
    message = render_in_basket(packet, manifest, policy=policy, declared=declared, target=TARGET)
    document = render_document_reference(packet, manifest, **common)
    [value] = json.loads(smart_data.body)["SmartDataValues"]
    results = json.loads(column.body)["result"]["results"]
    return {
        "score-column": results["Outputs"]["Output1"]["Scores"]["HCT"]["Values"],
        "flowsheet": [dict(flowsheet.parameters)["Value"], dict(flowsheet.parameters)["Comment"]],
        "smart-data": [value["Values"], *value["Comments"]],
        "in-basket": json.loads(message.body)["MessageText"],
        "observation": render_observation(
            packet, manifest, declared=ObservationOutput(rows={"hematocrit": "9"}), **common
        ),
        "risk-assessment": render_risk_assessment(packet, manifest, **common),
        "communication": render_communication(packet, manifest, declared=CommunicationOutput(), **common),
        "flag": render_flag(packet, manifest, **common),
        "document-reference": base64.b64decode(document["content"][0]["attachment"]["data"]).decode(),
        "record": event_record(packet, manifest, **common),
    }


# -- the number


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "0"),
        (1.0, "100"),
        (0.75, "75"),
        (0.125, "12.5"),
        (0.1, "10"),
        (0.12345, "12.35"),
        (0.00004, "0"),
        (0.00006, "0.01"),
        (0.99999, "100"),
        (1 / 3, "33.33"),
        (1e-300, "0"),
    ],
)
def test_a_probability_is_written_on_the_scale_of_0_to_100_with_at_most_two_decimals(packet_of, score, text):
    assert number_of(packet_of, score) == text


@pytest.mark.parametrize(
    ("number", "text"), [(9.5, "9.5"), (-3.0, "-3"), (1234.567, "1234.57"), (-0.001, "0"), (0.0, "0")]
)
def test_a_number_is_written_as_it_is_in_its_own_unit(packet_of, number, text):
    assert number_of(packet_of, number, unit="g/dL") == text


@pytest.mark.parametrize(
    ("decimals", "in_percent", "of_one", "of_its_unit"),
    [
        (None, "87.34", 0.8734, "4.26"),
        (4, "87.34", 0.8734, "4.2565"),
        (3, "87.3", 0.873, "4.256"),
        (2, "87", 0.87, "4.26"),
        (1, "87", 0.9, "4.3"),
        (0, "87", 1.0, "4"),
    ],
)
def test_decimals_are_those_of_the_score_itself_in_per_cent_two_less(
    decided, bundle, decimals, in_percent, of_one, of_its_unit
):
    policy = policy_of(decimals=decimals)
    seen = rendered(decided(), bundle, policy)
    assert seen["score-column"] == [in_percent]
    assert [seen[name][0] for name in ("flowsheet", "smart-data")] == [in_percent] * 2
    assert seen["observation"]["valueQuantity"]["value"] == float(in_percent)
    assert seen["risk-assessment"]["prediction"][0]["probabilityDecimal"] == of_one
    assert (seen["record"]["score"], seen["record"]["shown"]) == (0.8734, f"{in_percent} %")
    assert one_number(decided(score=4.2565, value_unit="mmol/L"), policy, output="flowsheet") == of_its_unit


@pytest.mark.parametrize(("advise", "packed"), [(True, "1.0873"), (False, "0.0873")])
def test_the_alert_is_packed_into_the_number_where_the_deployment_says_so_and_nowhere_else(
    decided, bundle, advise, packed
):
    seen = rendered(decided(advise=advise), bundle, policy_of(packed_in=("score-column", "observation")))
    assert seen["score-column"] == [packed]
    quantity = seen["observation"]["valueQuantity"]
    assert (quantity["value"], quantity["unit"], quantity["code"]) == (float(packed), "1", "1")
    assert unpacked_alert(str(quantity["value"])) == (advise, 0.873)
    assert (seen["flowsheet"][0], seen["smart-data"][0], seen["record"]["shown"]) == ("87.34", "87.34", "87.34 %")


@pytest.mark.parametrize("score", [-0.0])
def test_what_may_not_be_shown_is_rendered_nowhere(decided, bundle, score):
    for policy in (policy_of(), policy_of(packed_in=("score-column",))):
        with pytest.raises(InvalidScore):
            render_score_column(decided(score=score), bundle, policy=policy, namespace="N", delivery_id="d")


# -- the words


def test_an_advisory_speaks_in_the_deployments_words_wherever_words_go(decided, bundle):
    seen = rendered(decided(), bundle, policy_of())
    said = ["Hold the order: 87 %", "Look at the last result.", "Then decide."]
    text = [
        *said,
        "HCT: 87.34 % (high)",
        "Predicted: outside its reference range.",
        "Model hematocrit 1.0.0, as of 2015-01-06T20:55:00Z.",
        "Made by a computer from the record; no clinician has reviewed it.",
    ]
    assert seen["in-basket"] == text
    assert seen["communication"]["payload"] == [{"contentString": "\n".join(text)}]
    assert seen["document-reference"] == "\n".join(text) + "\n"
    assert seen["flag"]["code"]["text"] == seen["record"]["headline"] == said[0]
    assert seen["observation"]["note"] == seen["risk-assessment"]["note"] == [{"text": "\n".join(said)}]
    assert seen["flowsheet"][1] == "Hold the order: 87 % - hematocrit 1.0.0"
    assert seen["smart-data"][1:] == [said[0], "hematocrit 1.0.0, as of 2015-01-06T20:55:00Z"]


def test_resources_with_words_are_valid_r4_by_another_implementation(decided, bundle):
    from fhirclient.models import observation, riskassessment

    seen = rendered(decided(), bundle, policy_of())
    for kind, name in ((observation.Observation, "observation"), (riskassessment.RiskAssessment, "risk-assessment")):
        assert kind(seen[name], strict=True).as_json() == seen[name]


@pytest.mark.parametrize("case", ["not advised", "no words for it"])
def test_without_advice_only_the_score_is_told(decided, bundle, case):
    policy = policy_of() if case == "not advised" else policy_of(advisory=None)
    seen = rendered(decided(advise=case != "not advised"), bundle, policy)
    assert seen["in-basket"][0] == seen["flag"]["code"]["text"] == seen["record"]["headline"] == "HCT: 87.34 % (high)"
    assert len(seen["in-basket"]) == 4
    assert "note" not in seen["observation"] | seen["risk-assessment"]
    assert "Hold" not in str(seen)


def test_where_scores_go_out_in_every_arm_no_words_tell_the_arms_apart(decided, bundle):
    trial = Trial(trial_id="t", version=1, unit=RandomizationUnit.PATIENT, arms=ARMS)
    policy = policy_of(mode=Mode.TRIAL, trial=trial, threshold=0.5, scores_in_every_arm=True)
    assert rendered(decided(), bundle, policy) == rendered(decided(advise=False), bundle, policy)


def test_a_site_replaces_the_lines_by_its_own(decided, bundle):
    policy = policy_of(
        decimals=2, advisory=None, message=("{label}: {score}", "Modell {model} {version}, Stand {as_of}")
    )
    assert lines(decided(), bundle.manifest, policy) == (
        "outside its reference range: 87 % (high)",
        "Modell hematocrit 1.0.0, Stand 2015-01-06T20:55:00Z",
    )
