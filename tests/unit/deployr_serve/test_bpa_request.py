"""A document by an alert: what is read from it, and all that is refused."""

from __future__ import annotations

import base64
import codecs
import gzip
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_serve.core.errors import (
    AmbiguousPatient,
    MalformedRequest,
    MissingPatient,
    RequestTooLarge,
    UnsupportedMediaType,
)
from deployr_serve.core.ports import TypedIdentifier
from deployr_serve.triggers.bpa_request import Paths, bpa_reader, open_document, parse_ts, read_document
from deployr_serve.triggers.bpa_xml import MAX_BYTES, compile_path, read_xml
from tests.cda import EXAMPLE, OID, ROOTS, SOAP_11, SOAP_12, cda, ii, in_soap, prefixed

EVENT = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)


def reader(**paths):
    return bpa_reader(roots=ROOTS, zone=None, paths=Paths(**paths))


def read(body, *, content_type="application/xml", content_encoding=None, by=None):
    body = body.encode() if isinstance(body, str) else body
    root, wrapping = open_document(body, content_type=content_type, content_encoding=content_encoding)
    return read_document(root, wrapping, by or reader())


def one(id_type, value):
    return (TypedIdentifier(type=id_type, value=value),)


def test_the_example_of_the_docs_names_patient_encounter_order_instant_and_who_asks():
    document = read(EXAMPLE)
    assert document.named.patient == one("FHIR", "p1")
    assert document.named.encounter == one("FHIR", "e1")
    assert document.named.order == one("FHIR", "o1")
    assert document.event_time == EVENT
    assert document.context == {"provider": f"{OID}.8|DR7", "department": f"{OID}.9|WARD3"}


def test_the_same_document_reads_the_same_under_any_prefix():
    assert read(prefixed(EXAMPLE, "cda")) == read(EXAMPLE)


@given(prefix=st.from_regex(r"[a-z_][a-z0-9_.-]{0,10}", fullmatch=True), space=st.sampled_from(["", "\n", "\t  "]))
def test_neither_prefix_nor_space_changes_what_is_read(prefix, space):
    assert read(prefixed(EXAMPLE, prefix).replace("><", f">{space}<") + space) == read(EXAMPLE)


@given(
    namespace=st.text(alphabet=st.characters(exclude_characters="<&\"'\r\n\t", exclude_categories=["C"]), max_size=30)
)
def test_a_document_of_any_other_namespace_is_refused(namespace):
    with pytest.raises(MalformedRequest):
        read(EXAMPLE.replace('xmlns="urn:hl7-org:v3"', f'xmlns="urn:hl7-org:v3{namespace}x"'))


@pytest.mark.parametrize("wrapped", [SOAP_11, SOAP_12])
def test_a_soap_envelope_is_taken_off(wrapped):
    assert read(in_soap(EXAMPLE, wrapped), content_type="text/xml; charset=utf-8") == read(EXAMPLE)


def test_a_document_in_base64_inside_process_document_is_taken_out():
    encoded = base64.encodebytes(EXAMPLE.encode()).decode()
    operation = (
        f'<ProcessDocument xmlns="urn:epic-com:Common.2013.Services"><Document>{encoded}</Document></ProcessDocument>'
    )
    assert read(in_soap(operation)) == read(EXAMPLE)


@pytest.mark.parametrize(
    "header",
    [
        '<s:Header><w:Security xmlns:w="urn:w" s:mustUnderstand="1"/></s:Header>',
        '<s:Header><w:Security xmlns:w="urn:w" s:mustUnderstand="1" '
        's:actor="http://schemas.xmlsoap.org/soap/actor/next"/></s:Header>',
    ],
)
def test_a_soap_header_that_must_be_understood_is_refused(header):
    with pytest.raises(MalformedRequest):
        read(in_soap(EXAMPLE, header=header))


@pytest.mark.parametrize("demand", ["", 's:mustUnderstand="0"', 's:mustUnderstand="1" s:actor="urn:somebody-else"'])
def test_a_soap_header_that_nobody_here_must_understand_is_passed_over(demand):
    header = f'<s:Header><w:Security xmlns:w="urn:w" {demand}><w:Password>x</w:Password></w:Security></s:Header>'
    assert read(in_soap(EXAMPLE, header=header)) == read(EXAMPLE)


# -- who it is about


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"record_target": ""}, MissingPatient),
        ({"record_target": "<recordTarget/>"}, MissingPatient),
        ({"patient": ""}, MissingPatient),
        ({"patient": '<id nullFlavor="UNK"/>'}, MissingPatient),
        ({"patient": f'<id nullFlavor="UNK" root="{OID}.1" extension="p1"/>'}, MissingPatient),
        ({"patient": f'<id root="{OID}.1"/>'}, MissingPatient),
        ({"patient": '<id root="1.2.3" extension="p1"/>'}, MissingPatient),
        ({"patient": ii(1, "p1") + ii(1, "p2")}, AmbiguousPatient),
        ({"patient": ii(2, "M1") + ii(2, "M2")}, AmbiguousPatient),
        ({"patient": ii(1, "p1/../p2")}, MalformedRequest),
        ({"patient": ii(2, "  ")}, MalformedRequest),
    ],
)
def test_nobody_is_taken_where_the_document_does_not_name_exactly_one_patient(changes, error):
    with pytest.raises(error):
        read(cda(**changes))


def test_two_record_targets_are_refused_even_where_they_name_the_same_patient():
    target = EXAMPLE[EXAMPLE.index("<recordTarget>") : EXAMPLE.index("</recordTarget>") + len("</recordTarget>")]
    with pytest.raises(AmbiguousPatient):
        read(EXAMPLE.replace(target, target + target))


def test_ids_of_different_types_are_all_handed_on_and_unknown_roots_left_out():
    document = read(cda(patient=ii(1, "p1") + ii(2, "M1") + ii(1, "p1") + '<id root="9.9" extension="secret"/>'))
    assert document.named.patient == (*one("FHIR", "p1"), *one("MRN", "M1"))


def test_narrative_that_names_somebody_else_is_not_read():
    assert read(cda(text=f"<text>{ii(1, 'p2')} <recordTarget>p2</recordTarget></text>")) == read(EXAMPLE)


@pytest.mark.parametrize("place", ["encounter", "order"])
def test_an_encounter_or_order_that_is_not_there_is_none(place):
    assert getattr(read(cda(**{place: ""})).named, place) == ()
    assert getattr(read(cda(**{place: f'<id nullFlavor="NI" root="{OID}.3"/>'})).named, place) == ()


@pytest.mark.parametrize("place", ["encounter", "order"])
@pytest.mark.parametrize("given_ids", ['<id root="9.9" extension="x"/>', ii(3, "x") + ii(3, "y")])
def test_an_encounter_or_order_that_is_not_understood_is_refused(place, given_ids):
    with pytest.raises(MalformedRequest):
        read(cda(**{place: given_ids}))


def test_an_entry_that_is_no_order_is_none():
    assert read(EXAMPLE.replace('moodCode="RQO"', 'moodCode="EVN"')).named.order == ()


# -- when it was


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("20140916152158-0500", datetime(2014, 9, 16, 20, 21, 58, tzinfo=UTC)),
        ("201409161521-0500", datetime(2014, 9, 16, 20, 21, tzinfo=UTC)),
        ("20140916152158.25+0545", datetime(2014, 9, 16, 9, 36, 58, 250_000, tzinfo=UTC)),
        ("20140916152158.123456789+0000", datetime(2014, 9, 16, 15, 21, 58, 123_456, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_with_its_offset(text, instant):
    assert parse_ts(text, zone=None) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023",
        "202301",
        "20230106",
        "2023010615-0500",
        "20230106155500",
        "20230230155500-0500",
        "20230106155560-0500",
        "20230106245500-0500",
        "20230106155500-1500",
        "20230106155500-0560",
        "19000101000000+0000",
        "00010101000000+1400",
        "20230106155500Z",
        "2023-01-06T15:55:00Z",
        "２０２３０１０６１５５５００-0500",
        "20230106155500-0500\n",
    ],
)
def test_a_time_that_is_not_an_instant_is_refused(text):
    with pytest.raises(MalformedRequest):
        parse_ts(text, zone=None)


def test_a_time_without_offset_is_the_sites_unless_it_was_not_or_was_twice():
    zone = ZoneInfo("America/New_York")
    assert parse_ts("20150106155500", zone=zone) == EVENT
    # 2015-03-08: the clocks went from 2 to 3 o'clock; 2015-11-01: from 2 back to 1.
    for text in ("20150308023000", "20151101013000"):
        with pytest.raises(MalformedRequest):
            parse_ts(text, zone=zone)


@pytest.mark.parametrize(
    "time", ["", '<effectiveTime nullFlavor="UNK"/>', 2 * '<effectiveTime value="20150106155500-0500"/>']
)
def test_a_document_without_one_time_is_refused(time):
    with pytest.raises(MalformedRequest):
        read(cda(time=time))


# -- what it comes as


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (EXAMPLE.encode(), "application/xml; charset=utf-8"),
        (codecs.BOM_UTF8 + EXAMPLE.encode(), "text/xml"),
        (EXAMPLE.replace("UTF-8", "UTF-16").encode("utf-16"), "text/xml"),
        (codecs.BOM_UTF16_BE + EXAMPLE.replace("UTF-8", "UTF-16").encode("utf-16-be"), "text/xml"),
        (cda(declaration="").encode("utf-16"), "text/xml; charset=utf-16"),
        (EXAMPLE.replace("UTF-8", "ISO-8859-1").replace("Not<", "Zoë<").encode("latin-1"), "text/xml"),
        (EXAMPLE.replace("UTF-8", "windows-1252").replace("Not<", "“<").encode("cp1252"), "text/xml"),
        (EXAMPLE.encode(), "Application/XML"),
    ],
)
def test_the_encodings_that_a_document_declares_are_read(body, content_type):
    assert read(body, content_type=content_type) == read(EXAMPLE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"not XML",
        b'{"patientId": "p1"}',
        b"<html><body>Sign in</body></html>",
        b"<html><br></html>",
        gzip.compress(EXAMPLE.encode()),
        EXAMPLE.encode()[:-20],
        EXAMPLE.encode() + b"<more/>",
        EXAMPLE.replace("Not<", "\0<").encode(),
        EXAMPLE.replace("Not<", "&#0;<").encode(),
        EXAMPLE.replace("Not<", "&name;<").encode(),
        EXAMPLE.replace("Not<", "Zoë<").encode("latin-1"),
        EXAMPLE.replace("Not<", "Zoë<").encode() + "<!-- ë -->".encode("latin-1"),
        EXAMPLE.encode("utf-16"),  # declares UTF-8
        EXAMPLE.replace("UTF-8", "UTF-16").encode(),
        EXAMPLE.replace("UTF-8", "UTF-16").encode("utf-16-le"),
        EXAMPLE.replace("UTF-8", "UTF-7").encode(),
        EXAMPLE.replace("UTF-8", "none-such").encode(),
        EXAMPLE.replace("urn:hl7-org:v3", "urn:hl7-org:v2").encode(),
        EXAMPLE.replace(' xmlns="urn:hl7-org:v3"', "").encode(),
        EXAMPLE.replace("ClinicalDocument", "Document").encode(),
        in_soap(EXAMPLE + EXAMPLE).encode(),
        in_soap("").encode(),
        in_soap(EXAMPLE, "urn:no-soap").encode(),
    ],
)
def test_what_is_no_document_in_the_encoding_that_it_declares_is_refused(body):
    with pytest.raises(MalformedRequest):
        read(body)


def test_a_charset_that_is_not_the_declared_one_is_refused():
    with pytest.raises(MalformedRequest):
        read(EXAMPLE, content_type="text/xml; charset=iso-8859-1")


@pytest.mark.parametrize("doctype", ["<!DOCTYPE ClinicalDocument>", '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">'])
@pytest.mark.parametrize("before", ["", "\n<!-- a > comment -->\n<?a target?>"])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
def test_any_doctype_is_refused(doctype, before, encoding):
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>{before}{doctype}'
    with pytest.raises(MalformedRequest, match="DOCTYPE"):
        read(cda(declaration=declaration).encode(encoding))


def test_what_looks_like_a_doctype_inside_is_text():
    assert read(cda(text="<text><![CDATA[<!DOCTYPE a>]]></text>")) == read(EXAMPLE)


def test_other_types_and_compressed_bodies_are_not_read():
    for content_type in (None, "application/json", "multipart/related", "text/html"):
        with pytest.raises(UnsupportedMediaType):
            read(EXAMPLE, content_type=content_type)
    with pytest.raises(UnsupportedMediaType):
        read(gzip.compress(EXAMPLE.encode()), content_encoding="gzip")


@pytest.mark.parametrize(
    "bomb",
    [
        b"<a>" + b" " * MAX_BYTES + b"</a>",
        b"<r>" + b"<a/>" * 70_000 + b"</r>",
        b"<r " + b" ".join(b'a%d=""' % number for number in range(70_000)) + b"/>",
    ],
)
def test_more_than_any_honest_document_is_refused_unread(bomb):
    with pytest.raises(RequestTooLarge):
        read_xml(bomb)


def test_what_is_nested_too_deep_is_refused():
    with pytest.raises(MalformedRequest):
        read_xml(b"<a>" * 300 + b"</a>" * 300)


# -- a site's own paths


def test_a_site_may_say_where_the_order_and_the_time_stand():
    by = reader(order="//c:entry/*[c:code/@code='57021-8']/c:id", event_time="c:author/c:time/@value", encounter=None)
    document = read(cda(time='<effectiveTime value="20150107"/>'), by=by)
    assert (document.named.order, document.named.encounter) == (one("FHIR", "o1"), ())
    assert document.event_time == EVENT


@pytest.mark.parametrize(
    "path",
    [
        "//c:entry[",
        "x:entry",
        "document('file:///etc/passwd')",
        "re:test(., 'a')",
        "//c:id[nothing()]",
        "date:date-time()",
        "",
    ],
)
def test_a_path_that_is_no_xpath_or_calls_what_there_is_not_is_refused_at_start(path):
    with pytest.raises(ValueError, match="order: expected"):
        reader(order=path)


def test_words_in_quotes_are_no_functions():
    assert compile_path("//c:id[contains(@root, 'f(x)') or true()]", namespaces={"c": "urn:hl7-org:v3"})


@pytest.mark.parametrize("path", ["count(//c:id)", "string(c:title)", "//c:id/@root", "//c:title/text()"])
def test_a_path_that_selects_no_elements_refuses_the_document(path):
    with pytest.raises(MalformedRequest):
        read(EXAMPLE, by=reader(order=path))
    if not path.endswith(("root", ")")) or path.startswith("count"):
        with pytest.raises(MalformedRequest):
            read(EXAMPLE, by=reader(event_time=path))


def test_the_prefix_of_cda_is_not_for_a_site_to_change():
    with pytest.raises(ValueError, match="namespaces"):
        reader(namespaces={"c": "urn:other"})
