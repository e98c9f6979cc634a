"""What an alert is answered: every answer is valid by the schema, and all that advise nothing are one."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest
from lxml import etree

import deployr_serve.triggers
from deployr_core.packet import Abstained, Decision, Failed, Mode, Rejected
from deployr_core.reasons import Reason
from deployr_serve.core.errors import EmrTimeout, Inconsistent, MissingPatient
from deployr_serve.core.policy import Advisory, Band, CodedReason, Indicator, Policy
from deployr_serve.triggers.bpa_answer import Answers, chosen, outcome_in_header, outcome_of_error
from deployr_serve.triggers.bpa_envelope import DECLARATION, Soap, Wrapping, fault, wrap
from deployr_serve.triggers.bpa_xml import Stylesheet

SCHEMA = etree.XMLSchema(etree.parse(Path(deployr_serve.triggers.__file__).with_name("bpa.xsd")))
PACKET_ID = "p" + 32 * "a"
NONE = b'<AdvisoryResponse xmlns="urn:deployr:bpa:1" version="1"><Outcome>none</Outcome></AdvisoryResponse>'
XSLT = (
    '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform" xmlns:a="urn:deployr:bpa:1"{}>'
    '<xsl:template match="/">{}</xsl:template></xsl:stylesheet>'
)


def stylesheet(body, attributes=""):
    return Stylesheet(XSLT.format(attributes, body).encode())


def policy(**changes):
    words = Advisory(
        headline="Hematocrit may be stable: {score_percent}, {band}",
        detail="Score {score}; <b>consider</b> & decide",
        acknowledge_reasons=(CodedReason(code="sicker", display="Patient is sicker"),),
    )
    given = {"mode": Mode.LIVE, "threshold": 0.5, "advisory": words, "bands": (Band(name="high", at_least=0.7),)}
    return Policy(schema_version=1, model="hematocrit", **given | changes)


@pytest.fixture
def advising(packet_of):
    """Give a function that makes a packet whose decision is to advise, unless told otherwise."""

    def make(*, advise=True, **changes):
        packet = packet_of(PACKET_ID)
        decision = Decision(mode=Mode.LIVE, advise=advise, why="advised", policy_sha256="c" * 64, threshold=0.5)
        outcome = msgspec.structs.replace(packet.outcome, decision=decision, **changes)
        return msgspec.structs.replace(packet, outcome=outcome)

    return make


def texts(answer):
    root = etree.fromstring(answer)
    assert SCHEMA.validate(root), SCHEMA.error_log
    return {etree.QName(each).localname: each.text for each in root.iter()}


def test_an_advisory_says_what_the_policy_has_it_say(advising):
    because = (
        Reason(concept="Hematocrit", value=0.25, text="Hematocrit: last 30 % (raises)"),
        Reason(concept="Age", value=-1e-7, text="Age 65 or more (lowers)"),
    )
    answer = Answers().advice(advising(), policy(), because=because)
    said = texts(answer)
    assert said["PacketId"] == PACKET_ID
    assert (said["Outcome"], said["Score"], said["Threshold"]) == ("advise", "0.75", "0.5")
    assert said["Headline"] == "Hematocrit may be stable: 75 %, high"
    assert said["Detail"] == "Score 0.75; <b>consider</b> & decide"
    reasons = etree.fromstring(answer).findall("{*}Reasons/{*}Reason")
    assert [(one.get("feature"), one.get("contribution"), one.text) for one in reasons] == [
        ("Hematocrit", "0.25", "Hematocrit: last 30 % (raises)"),
        ("Age", "-1e-07", "Age 65 or more (lowers)"),
    ]
    [acknowledge] = etree.fromstring(answer).findall("{*}AcknowledgeReasons/{*}Reason")
    assert (acknowledge.get("code"), acknowledge.text) == ("sicker", "Patient is sicker")


def test_a_score_is_rounded_as_the_policy_says(advising):
    assert texts(Answers().advice(advising(), policy(decimals=1), because=()))["Score"] == "0.8"


def test_what_no_xml_may_hold_is_left_out(advising):
    words = Advisory(headline="low\x00 \x0b\ud800count\U0001f9ea")
    assert texts(Answers().advice(advising(), policy(advisory=words), because=()))["Headline"] == "low count🧪"


def test_the_answer_without_advice_is_one_constant_document():
    assert Answers().none == NONE
    assert texts(NONE) == {"AdvisoryResponse": None, "Outcome": "none"}


def test_the_schema_takes_nothing_beside_an_outcome_of_none():
    more = NONE.replace(b"</Outcome>", b"</Outcome><Score>0.5</Score>")
    assert not SCHEMA.validate(etree.fromstring(more))


def test_of_a_group_the_most_urgent_is_shown_and_of_equals_the_first(advising):
    info, warning, critical = (
        policy(advisory=Advisory(headline="h", indicator=each))
        for each in (Indicator.INFO, Indicator.WARNING, Indicator.CRITICAL)
    )
    shown, hidden = advising(), advising(advise=False)
    first, second = advising(base=1.0), advising(base=2.0)
    assert chosen([(shown, info), (shown, warning), (hidden, critical)]) == (shown, warning)
    assert chosen([(first, info), (second, info)]) == (first, info)
    assert chosen([(hidden, critical), (shown, policy(advisory=None))]) is None
    assert chosen([]) is None


def test_the_header_tells_no_arm_from_another(advising, packet_of):
    abstained, failed, rejected = (
        packet_of(outcome=outcome)
        for outcome in (
            Abstained(reason="sparse"),
            Failed(reason="emr-timeout", retryable=True),
            Rejected(reason="wrong-patient"),
        )
    )
    assert outcome_in_header([advising()]) == outcome_in_header([advising(advise=False)]) == "scored"
    assert outcome_in_header([failed, advising(advise=False)]) == "scored"
    assert outcome_in_header([abstained]) == "abstained;code=sparse"
    assert outcome_in_header([failed, rejected]) == "failed;code=emr-timeout"
    assert outcome_in_header([rejected]) == "rejected;code=wrong-patient"


def test_an_error_without_a_packet_is_said_alike():
    assert outcome_of_error(MissingPatient("x")) == "rejected;code=missing-patient"
    assert outcome_of_error(EmrTimeout("x")) == "failed;code=emr-timeout"
    assert outcome_of_error(Inconsistent("x")) == "abstained;code=inconsistent"


# -- what it goes out in


def test_an_answer_goes_out_as_its_question_came_in():
    assert wrap(NONE, Wrapping()) == DECLARATION + NONE
    for soap in Soap:
        root = etree.fromstring(wrap(NONE, Wrapping(soap=soap)))
        [inside] = root.find(soap.named("Body"))
        assert (root.tag, inside.tag) == (soap.named("Envelope"), "{urn:deployr:bpa:1}AdvisoryResponse")
        assert SCHEMA.validate(inside)


def test_an_answer_to_process_document_is_its_response():
    root = etree.fromstring(wrap(NONE, Wrapping(soap=Soap.V11, process_document=True)))
    [document] = root.iter("{urn:epic-com:Common.2013.Services}Document")
    assert document.getparent().tag.endswith("}ProcessDocumentResult")
    assert document.getparent().getparent().tag.endswith("}ProcessDocumentResponse")
    assert base64.b64decode(document.text) == DECLARATION + NONE


@pytest.mark.parametrize(("soap", "code"), [(Soap.V11, "soap:Client"), (Soap.V12, "soap:Sender")])
def test_a_fault_says_that_it_is_the_senders(soap, code):
    root = etree.fromstring(fault("expected <this>", Wrapping(soap=soap)))
    assert root.find(f"{soap.named('Body')}/{soap.named('Fault')}") is not None
    assert code in {each.text for each in root.iter()}
    assert "expected <this>" in {each.text for each in root.iter()}


# -- a site's stylesheet


def test_a_sites_stylesheet_makes_both_kinds_of_answer(advising):
    answers = Answers(
        stylesheet("<Alert><xsl:value-of select='//a:Headline'/></Alert>", ' exclude-result-prefixes="a"')
    )
    assert answers.none == b"<Alert/>"
    said = answers.advice(advising(), policy(), because=())
    assert said == b"<Alert>Hematocrit may be stable: 75 %, high</Alert>"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"<a/>",
        b"<!DOCTYPE a><a/>",
        XSLT.format("", "<xsl:value-of select=\"document('http://127.0.0.1:9/')\"/>").encode(),
        XSLT.format("", "<o><xsl:value-of select='document ( &quot;bpa.xsd&quot; )'/></o>").encode(),
        XSLT.format("", "<xsl:document href='file:///tmp/x'><a/></xsl:document>").encode(),
        XSLT.format("", "<o><xsl:message terminate='yes'>x</xsl:message></o>").encode(),
        XSLT.format("", "<o/>").replace("<xsl:template ", '<xsl:include href="x.xsl"/><xsl:template ').encode(),
        XSLT.format(' xmlns:date="http://exslt.org/dates-and-times"', "<o/>").encode(),
        XSLT.format(' extension-element-prefixes="a"', "<o/>").encode(),
    ],
)
def test_a_stylesheet_that_could_reach_elsewhere_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        Stylesheet(bad)


@pytest.mark.parametrize(
    "body",
    [
        "no element",
        "<o><xsl:value-of select='unknown()'/></o>",
        "<xsl:if test='//a:Score'><o/></xsl:if>",
        "<xsl:if test='not(//a:Score)'><o/></xsl:if>",
    ],
)
def test_a_stylesheet_that_fails_on_either_answer_is_found_out_at_start(body):
    with pytest.raises(ValueError, match="expected the stylesheet to make"):
        Answers(stylesheet(body))


def test_a_stylesheet_without_the_check_of_its_text_still_reaches_nothing(monkeypatch, tmp_path):
    canary = tmp_path / "canary.xml"
    canary.write_text("<canary/>")
    monkeypatch.setattr(Stylesheet, "_check", staticmethod(lambda _: None))
    reaching = stylesheet(f"<o><xsl:copy-of select=\"document('{canary.as_uri()}')\"/></o>")
    with pytest.raises(ValueError, match="expected the stylesheet to make"):
        reaching.transformed(NONE)


def test_a_stylesheet_that_fails_on_one_advisory_gives_an_error_and_no_half_answer(advising):
    failing = stylesheet("<o><xsl:if test=\"//a:Detail\"><xsl:value-of select='unknown()'/></xsl:if></o>")
    answers = Answers(failing)
    with pytest.raises(ValueError, match="expected the stylesheet to make"):
        answers.advice(advising(), policy(), because=())
