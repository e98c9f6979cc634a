"""Each way out's payload, written down by hand from the wire formats and the FHIR R4 resource pages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import msgspec
import pytest

from deployr_core.packet import Decision, Mode
from deployr_serve.core.errors import InvalidScore, OutputNotOffered, UnknownContext, WrongPatient
from deployr_serve.core.policy import Policies
from deployr_serve.outputs.communication import render_communication
from deployr_serve.outputs.declared import (
    CommunicationOutput,
    FlowsheetOutput,
    InBasketOutput,
    ObservationOutput,
    Recipient,
    SmartDataContext,
    SmartDataEncoding,
    SmartDataOutput,
    TextForm,
)
from deployr_serve.outputs.document_reference import render_document_reference
from deployr_serve.outputs.fhir_elements import insist_on_subject
from deployr_serve.outputs.file_drop import render_csv
from deployr_serve.outputs.flag import render_flag
from deployr_serve.outputs.flowsheet import render_flowsheet
from deployr_serve.outputs.in_basket import render_in_basket
from deployr_serve.outputs.observation import render_observation
from deployr_serve.outputs.risk_assessment import render_risk_assessment
from deployr_serve.outputs.smart_data import render_smart_data
from deployr_serve.outputs.vendor_target import VendorTarget, VendorUser, insist_on
from deployr_serve.outputs.webhook import render_webhook

PLAIN = Policies().of("hematocrit")
TARGET = VendorTarget(patient_id="E7", patient_id_type="EPI", csn="42")
USER = VendorUser(id="1", type="External")
LINES = [
    "HCT: 75 %",
    "Predicted: outside its reference range.",
    "Model hematocrit 1.0.0, as of 2015-01-06T20:55:00Z.",
    "Made by a computer from the record; no clinician has reviewed it.",
]
IDENTIFIER = [{"system": "urn:deployr:delivery", "value": "p01.x"}]
ABOUT = {"subject": {"reference": "Patient/p1"}, "encounter": {"reference": "Encounter/e1"}}
MODEL = {
    "coding": [{"system": "urn:deployr:model", "version": "1.0.0", "code": "hematocrit"}],
    "text": "hematocrit 1.0.0",
}


@pytest.fixture
def manifest(bundle):
    return bundle.manifest


@pytest.fixture
def millimoles(packet_of):
    """Give a packet whose score is a number with a unit, and no probability."""
    packet = packet_of()
    return packet_of(outcome=msgspec.structs.replace(packet.outcome, score=4.25, value_unit="mmol/L"))


@pytest.fixture
def banded(packet_of):
    packet = packet_of()
    decision = Decision(mode=Mode.LIVE, advise=True, why="advised", policy_sha256="0" * 64, band="high")
    return packet_of(outcome=msgspec.structs.replace(packet.outcome, decision=decision))


def test_a_flowsheet_row_is_all_query_and_an_empty_object(packet_of, manifest):
    declared = FlowsheetOutput(rows={"hematocrit": "90001"}, template="77")
    write = render_flowsheet(packet_of(), manifest, policy=PLAIN, declared=declared, target=TARGET, user=USER)
    assert (write.method, write.body) == ("POST", b"{}")
    assert write.path == "api/epic/2011/Clinical/Patient/ADDFLOWSHEETVALUE/FlowsheetValue"
    assert dict(write.parameters) == {
        "Comment": "hematocrit 1.0.0",
        "ContactID": "42",
        "ContactIDType": "CSN",
        "FlowsheetID": "90001",
        "FlowsheetIDType": "EXTERNAL",
        "FlowsheetTemplateID": "77",
        "FlowsheetTemplateIDType": "EXTERNAL",
        "InstantValueTaken": "2015-01-06T20:55:00Z",
        "PatientID": "E7",
        "PatientIDType": "EPI",
        "UserID": "1",
        "UserIDType": "External",
        "Value": "75",
    }


def test_a_flowsheet_row_needs_a_contact_and_a_row_for_the_model(packet_of, manifest):
    nowhere = VendorTarget(patient_id="E7", patient_id_type="EPI")
    here, elsewhere = FlowsheetOutput(rows={"hematocrit": "90001"}), FlowsheetOutput(rows={"anemia": "90001"})
    with pytest.raises(UnknownContext):
        render_flowsheet(packet_of(), manifest, policy=PLAIN, declared=here, target=nowhere, user=USER)
    with pytest.raises(OutputNotOffered):
        render_flowsheet(packet_of(), manifest, policy=PLAIN, declared=elsewhere, target=TARGET, user=USER)


@pytest.mark.parametrize(
    ("encoding", "values"),
    [
        (
            SmartDataEncoding.LIST,
            [
                {
                    "Comments": ["hematocrit 1.0.0, as of 2015-01-06T20:55:00Z"],
                    "SmartDataID": "DEPLOYR#001",
                    "SmartDataIDType": "SDI",
                    "Values": "75",
                }
            ],
        ),
        (
            SmartDataEncoding.WRAPPED,
            {
                "Value": [
                    {
                        "Comments": {"string": ["hematocrit 1.0.0, as of 2015-01-06T20:55:00Z"]},
                        "SmartDataID": "DEPLOYR#001",
                        "SmartDataIDType": "SDI",
                        "Values": {"string": ["75"]},
                    }
                ]
            },
        ),
    ],
)
def test_a_smart_data_element_is_set_in_either_encoding(packet_of, manifest, encoding, values):
    declared = SmartDataOutput(elements={"hematocrit": "DEPLOYR#001"}, encoding=encoding)
    write = render_smart_data(packet_of(), manifest, policy=PLAIN, declared=declared, target=TARGET, user=USER)
    assert (write.method, write.parameters) == ("PUT", ())
    assert json.loads(write.body) == {
        "ContextName": "ENCOUNTER",
        "EntityID": "E7",
        "EntityIDType": "EPI",
        "ContactID": "42",
        "ContactIDType": "CSN",
        "UserID": "1",
        "UserIDType": "External",
        "Source": "Web Service",
        "SmartDataValues": values,
    }


def test_a_smart_data_element_of_the_patient_names_no_contact(packet_of, manifest):
    declared = SmartDataOutput(elements={"hematocrit": "DEPLOYR#001"}, context=SmartDataContext.PATIENT)
    write = render_smart_data(packet_of(), manifest, policy=PLAIN, declared=declared, target=TARGET, user=USER)
    assert "ContactID" not in json.loads(write.body)


@pytest.mark.parametrize(("form", "text"), [(TextForm.LINES, LINES), (TextForm.TEXT, "\n".join(LINES))])
def test_a_message_says_what_was_predicted_and_names_nobody_in_its_text(packet_of, manifest, form, text):
    declared = InBasketOutput(recipients=(Recipient(id="P77"),), sender_id="DEPLOYR", text_form=form)
    write = render_in_basket(packet_of(), manifest, policy=PLAIN, declared=declared, target=TARGET)
    assert json.loads(write.body) == {
        "PatientID": "E7",
        "PatientIDType": "EPI",
        "Recipients": [{"ID": "P77", "IDType": "External", "IsPool": True}],
        "MessageText": text,
        "SenderID": "DEPLOYR",
        "SenderIDType": "External",
        "MessageType": "Staff Message",
        "ContactID": "42",
        "ContactIDType": "CSN",
    }


def test_an_observation_is_a_vital_sign_of_its_flowsheet_row(packet_of, manifest):
    declared = ObservationOutput(rows={"hematocrit": "90001"})
    system = "http://open.epic.com/FHIR/StructureDefinition/observation-flowsheet-id"
    category = "http://terminology.hl7.org/CodeSystem/observation-category"
    assert render_observation(packet_of(), manifest, policy=PLAIN, declared=declared, delivery_id="p01.x") == {
        "resourceType": "Observation",
        "identifier": IDENTIFIER,
        "status": "final",
        "category": [{"coding": [{"system": category, "code": "vital-signs"}]}],
        "code": {"coding": [{"system": system, "code": "90001"}], "text": "HCT"},
        **ABOUT,
        "effectiveDateTime": "2015-01-06T20:55:00Z",
        "valueQuantity": {"value": 75.0, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"},
    }


def test_a_number_keeps_its_own_unit_in_an_observation(millimoles, manifest):
    declared = ObservationOutput(rows={"hematocrit": "90001"})
    quantity = render_observation(millimoles, manifest, policy=PLAIN, declared=declared, delivery_id="p01.x")[
        "valueQuantity"
    ]
    assert (quantity["value"], quantity["code"]) == (4.25, "mmol/L")


def test_a_risk_assessment_holds_a_fraction_of_one_and_what_it_rests_on(banded, manifest):
    assert render_risk_assessment(banded, manifest, policy=PLAIN, delivery_id="p01.x") == {
        "resourceType": "RiskAssessment",
        "identifier": IDENTIFIER,
        "status": "final",
        "method": MODEL,
        "code": {"text": "HCT"},
        **ABOUT,
        "occurrenceDateTime": "2015-01-06T20:55:00Z",
        "prediction": [
            {
                "outcome": {"text": "outside its reference range"},
                "probabilityDecimal": 0.75,
                "qualitativeRisk": {"text": "high"},
            }
        ],
        "basis": [{"reference": "ServiceRequest/o1"}],
    }


def test_a_risk_assessment_tells_every_class(packet_of, manifest):
    outcome = msgspec.structs.replace(packet_of().outcome, outputs={"low": 0.2, "normal": 0.05, "high": 0.75})
    told = render_risk_assessment(packet_of(outcome=outcome), manifest, policy=PLAIN, delivery_id="p01.x")["prediction"]
    assert [(one["outcome"]["text"], one["probabilityDecimal"]) for one in told] == [
        ("low", 0.2),
        ("normal", 0.05),
        ("high", 0.75),
    ]


def test_a_number_is_no_risk(millimoles, manifest):
    with pytest.raises(InvalidScore):
        render_risk_assessment(millimoles, manifest, policy=PLAIN, delivery_id="p01.x")


def test_a_communication_carries_the_lines(packet_of, manifest):
    declared = CommunicationOutput(recipients=("Practitioner/d1",))
    category = "http://terminology.hl7.org/CodeSystem/communication-category"
    assert render_communication(packet_of(), manifest, policy=PLAIN, declared=declared, delivery_id="p01.x") == {
        "resourceType": "Communication",
        "identifier": IDENTIFIER,
        "status": "completed",
        "category": [{"coding": [{"system": category, "code": "notification"}]}],
        "topic": MODEL,
        **ABOUT,
        "sent": "2015-01-06T20:55:00Z",
        "payload": [{"contentString": "\n".join(LINES)}],
        "recipient": [{"reference": "Practitioner/d1"}],
    }


def test_a_flag_says_the_score_with_its_band(banded, manifest):
    category = "http://terminology.hl7.org/CodeSystem/flag-category"
    assert render_flag(banded, manifest, policy=PLAIN, delivery_id="p01.x") == {
        "resourceType": "Flag",
        "identifier": IDENTIFIER,
        "status": "active",
        "category": [{"coding": [{"system": category, "code": "clinical"}]}],
        "code": {**MODEL, "text": "HCT: 75 % (high)"},
        **ABOUT,
        "period": {"start": "2015-01-06T20:55:00Z"},
    }


def test_a_document_holds_the_lines_and_lists_its_encounter_under_context(packet_of, manifest):
    document = render_document_reference(packet_of(), manifest, policy=PLAIN, delivery_id="p01.x")
    attachment = document["content"][0]["attachment"]
    assert base64.b64decode(attachment["data"]).decode() == "\n".join(LINES) + "\n"
    assert document["context"] == {"encounter": [{"reference": "Encounter/e1"}]}
    assert "encounter" not in document


def every_resource(packet, manifest):
    return [
        render_observation(
            packet, manifest, policy=PLAIN, declared=ObservationOutput(rows={"hematocrit": "9"}), delivery_id="p01.x"
        ),
        render_risk_assessment(packet, manifest, policy=PLAIN, delivery_id="p01.x"),
        render_communication(packet, manifest, policy=PLAIN, declared=CommunicationOutput(), delivery_id="p01.x"),
        render_flag(packet, manifest, policy=PLAIN, delivery_id="p01.x"),
        render_document_reference(packet, manifest, policy=PLAIN, delivery_id="p01.x"),
    ]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("is_alone", [False, True])
def test_every_resource_is_valid_r4_by_another_implementation(packet_of, banded, manifest, place, is_alone):
    from fhirclient.models import communication, documentreference, flag, observation, riskassessment

    packet = packet_of(subject=msgspec.structs.replace(banded.subject, encounter_id=None, order_id=None))
    resource = every_resource(packet if is_alone else banded, manifest)[place]
    kind = [
        observation.Observation,
        riskassessment.RiskAssessment,
        communication.Communication,
        flag.Flag,
        documentreference.DocumentReference,
    ][place]
    assert kind(resource, strict=True).as_json() == resource


@pytest.mark.parametrize("place", range(5))
def test_a_resource_about_anybody_else_is_noticed(packet_of, manifest, place):
    resource = every_resource(packet_of(), manifest)[place]
    insist_on_subject(resource, packet_of())
    for other in (
        packet_of(patient_id="p2"),
        packet_of(subject=msgspec.structs.replace(packet_of().subject, encounter_id="e2")),
    ):
        with pytest.raises(WrongPatient):
            insist_on_subject(resource, other)


def test_a_vendor_write_about_anybody_else_is_noticed():
    insist_on(TARGET, patient_ids=("E7",), contact_ids=("42",))
    insist_on(TARGET, patient_ids=("E7",), contact_ids=())
    for patients, contacts in ((("E8",), ("42",)), (("E7",), ("43",)), ((), ("42",)), (("E7", "E8"), ())):
        with pytest.raises(WrongPatient):
            insist_on(TARGET, patient_ids=patients, contact_ids=contacts)


def test_a_file_has_a_header_and_one_row_with_every_digit(packet_of, manifest):
    outcome = msgspec.structs.replace(packet_of().outcome, score=1 / 3)
    content = render_csv(packet_of(outcome=outcome), manifest, policy=PLAIN, delivery_id="p01.file-drop").decode()
    assert content == (
        "version,delivery_id,packet_id,environment,model_id,model_version,score_name,patient_id,encounter_id,csn,"
        "order_id,as_of,scored_at,score,unit,band,shown,headline\r\n"
        "1,p01.file-drop,p01,TEST,hematocrit,1.0.0,HCT,p1,e1,42,o1,2015-01-06T20:55:00Z,2015-01-06T20:55:00Z,"
        "0.3333333333333333,,,33.33 %,HCT: 33.33 %\r\n"
    )


def test_what_would_end_a_cell_is_quoted(packet_of, manifest):
    content = render_csv(packet_of(packet_id='p,"1'), manifest, policy=PLAIN, delivery_id="d").decode()
    assert ',"p,""1",' in content


def test_an_event_is_signed_over_its_timestamp_and_its_body(packet_of, manifest, now):
    event = render_webhook(packet_of(), manifest, policy=PLAIN, delivery_id="p01.webhook", key=b"k" * 32, now=now)
    # 2015-01-06T20:55:00Z is 16441 days and 75300 s after 1970: 16441 * 86400 + 75300.
    assert event.headers["X-Deployr-Timestamp"] == str(16441 * 86400 + 75300)
    signed = b"1420577700." + event.body
    assert event.headers["X-Deployr-Signature"] == "v1=" + hmac.new(b"k" * 32, signed, hashlib.sha256).hexdigest()
    assert event.headers["Idempotency-Key"] == "p01.webhook"
    assert json.loads(event.body)["score"] == 0.75
