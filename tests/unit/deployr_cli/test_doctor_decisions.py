"""What `deployr doctor` makes of answers, one decision at a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from deployr_cli.doctor.decide import access, reads
from deployr_cli.doctor.decide.findings import (
    FIXES,
    State,
    counted,
    fail,
    has_failed,
    listed,
    ok,
    settings_findings,
    shown,
    skipped,
    to_json,
    verdict,
    warn,
)
from deployr_cli.doctor.decide.writes import refusal
from deployr_core.codes import LOINC, Code
from deployr_core.declared import Analyte, Statistic
from deployr_core.facts import Demographics, Lab, PatientFacts, Sex
from deployr_core.features import FeatureSpec, LabGroup
from deployr_core.packet import FetchRecord
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_plan import Search
from deployr_serve.adapters.scopes import parse_scopes
from deployr_serve.core import errors

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HERE = frozenset({("https", "emr.example", 443)})


def shaken(days, version="TLSv1.3"):
    return access.Handshake(version=version, certificate_ends=NOW + timedelta(days=days))


# -- findings


def test_each_setting_that_is_complained_of_is_a_finding_of_its_own():
    found = settings_findings(
        "settings: DEPLOYR_A: the setting is missing; DEPLOYR_B or DEPLOYR_C may stand in; DEPLOYR_D: expected 0 or 1"
    )
    assert [(it.check, it.said) for it in found] == [
        ("DEPLOYR_A", "the setting is missing; DEPLOYR_B or DEPLOYR_C may stand in"),
        ("DEPLOYR_D", "expected 0 or 1"),
    ]


def test_the_verdict_counts_what_is_left_to_do():
    found = [ok("a", ""), fail("b", "", "do b"), warn("c", "", "do c"), skipped("d", "")]
    assert verdict(found) == "1 ok, 1 to fix, 1 to look at, 1 skipped"
    assert verdict([ok("a", "")]) == "1 ok, 0 to fix"
    assert has_failed(found)
    assert not has_failed(found[2:])
    assert json.loads(to_json(found))["findings"][1] == {"check": "b", "state": "fail", "said": "", "fix": "do b"}


def test_every_reason_that_reading_can_fail_for_says_what_to_do():
    leaves = [
        it for kind in (errors.TryLater, errors.EmrRefused, errors.Restricted) for it in (kind, *kind.__subclasses__())
    ]
    # Of no call that doctor makes.
    ours = {"deadline", "in-progress", "predictor-unavailable", "store-unavailable", "too-many-requests", "error"}
    assert {it.reason for it in leaves} - ours <= set(FIXES)


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "page", "1 page"), (0, "page", "0 pages"), (1200, "reply", "1,200 replies"), (2, "search", "2 searches")],
)
def test_a_count_has_its_noun(number, noun, text):
    assert counted(number, noun) == text


def test_what_a_server_wrote_breaks_no_line():
    assert shown("a\x1b[31m\nb") == "a?[31m?b"
    assert shown("µmol/L") == "µmol/L"
    assert shown(None) == "none"
    assert listed(map(str, range(5)), most=2) == "0, 1 and 3 more"


# -- the way in


@pytest.mark.parametrize(
    ("handshake", "state"),
    [(shaken(30), State.OK), (shaken(29), State.WARN), (None, State.WARN)],
    ids=["30", "29", "http"],
)
def test_a_certificate_should_last_thirty_days(handshake, state):
    assert access.judge_handshake("server", handshake, now=NOW).state is state


@pytest.mark.parametrize(
    ("date", "state"),
    [
        ("Sat, 31 Jan 2026 12:01:00 GMT", State.OK),
        ("Sat, 31 Jan 2026 12:01:01 GMT", State.WARN),
        ("Sat, 31 Jan 2026 11:55:00 GMT", State.WARN),
        ("Sat, 31 Jan 2026 11:54:59 GMT", State.FAIL),
        ("Sat, 31 Jan 2026 12:05:01 GMT", State.FAIL),
        ("yesterday", State.WARN),
        (None, State.WARN),
    ],
)
def test_clocks_may_differ_by_a_minute_and_must_not_by_five(date, state):
    assert access.judge_clock("clock", date, ours=NOW).state is state


def discovered(status=200, needed="system/Observation.rs", **changes):
    body = {
        "token_endpoint": "https://emr.example/token",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384"],
        "scopes_supported": ["system/*.rs"],
        **changes,
    }
    return access.judge_discovery(
        status,
        access.smart_configuration(json.dumps(body).encode()),
        algorithm="RS384",
        token_origins=HERE,
        needed=parse_scopes(needed),
    )


@pytest.mark.parametrize(
    ("changes", "state", "word"),
    [
        ({}, State.OK, "RS384"),
        ({"status": 404}, State.FAIL, "404"),
        ({"token_endpoint": None}, State.FAIL, "no SMART"),
        ({"token_endpoint": "https://elsewhere.example/token"}, State.FAIL, "another origin"),
        ({"token_endpoint": "https://emr.example.evil.example/token"}, State.FAIL, "another origin"),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, State.FAIL, "private_key_jwt"),
        ({"token_endpoint_auth_methods_supported": None}, State.OK, ""),
        ({"token_endpoint_auth_signing_alg_values_supported": ["ES384"]}, State.FAIL, "ES384"),
        ({"scopes_supported": ["system/Patient.rs"]}, State.OK, "lacks Observation"),
        ({"scopes_supported": None}, State.OK, ""),
    ],
)
def test_discovery_has_to_offer_what_we_use(changes, state, word):
    found = discovered(**changes)
    assert found.state is state
    assert word in found.said


def keys(*kids, **more):
    return json.dumps(
        {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS384", "kid": it, **more} for it in kids]}
    ).encode()


def test_our_key_is_told_by_kind_size_and_id():
    # AQAB is 0x010001, of 17 bits.
    assert access.judge_key(keys("k1", "k0")).said == "RSA of 17 bits, RS384, kid k1; 1 old key kept beside it"


@pytest.mark.parametrize(
    ("status", "theirs", "state"),
    [
        (200, keys("k1"), State.OK),
        (200, keys("k1", "k2"), State.WARN),
        (200, keys("k2"), State.FAIL),
        (200, keys("k1", e="Aw"), State.FAIL),
        (200, keys("k1", d="c2VjcmV0"), State.FAIL),
        (200, b"<html>", State.FAIL),
        (404, keys("k1"), State.FAIL),
    ],
)
def test_the_published_set_has_to_hold_our_key(status, theirs, state):
    assert access.judge_jwks(keys("k1"), status=status, theirs=theirs).state is state


@pytest.mark.parametrize(("expires_in", "state"), [(60, State.OK), (59, State.WARN), (None, State.WARN)])
def test_a_token_should_live_a_minute(expires_in, state):
    assert access.judge_token(access.TokenAnswer(expires_in=expires_in)).state is state


def test_missing_scopes_are_named_with_who_needs_them():
    needed = parse_scopes("system/Observation.s?category=laboratory system/Condition.s")
    found = access.judge_scopes(
        parse_scopes("system/Condition.rs"), {"m": needed, "n": parse_scopes("system/Condition.s")}, labels=frozenset()
    )
    assert found.state is State.FAIL
    assert found.said == "not granted: Observation (laboratory) for m"
    assert "system/Observation.rs" in found.fix
    assert access.judge_scopes(None, {"m": needed}, labels=frozenset()).state is State.OK


# -- what the server says about itself


def stated(version="4.0.1", **resource):
    listing = {
        "type": "Observation",
        "interaction": [{"code": "search-type"}],
        "searchParam": [{"name": "code"}],
        **resource,
    }
    return reads.statement_in(
        json.dumps(
            {
                "resourceType": "CapabilityStatement",
                "fhirVersion": version,
                "format": ["json"],
                "rest": [{"mode": "server", "resource": [listing]}],
            }
        ).encode()
    )


@pytest.mark.parametrize(
    ("version", "state"), [("4.0.1", State.OK), ("3.0.2", State.FAIL), ("4.3.0", State.FAIL), ("", State.FAIL)]
)
def test_the_servers_version_has_to_be_the_one_in_the_settings(version, state):
    assert reads.judge_statement(200, stated(version), version="R4").state is state


def test_what_is_no_statement_is_said_so():
    assert reads.statement_in(b'{"resourceType": "OperationOutcome"}') is None
    assert reads.judge_statement(200, None, version="R4").state is State.FAIL
    assert reads.judge_statement(403, None, version="R4").state is State.WARN


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b'<?xml version="1.0"?>\n<CapabilityStatement xmlns="http://hl7.org/fhir"/>', State.WARN),
        (b'{"resourceType": "OperationOutcome"}', State.WARN),
        (b"<html>Log in</html>", State.FAIL),
        (b"{}", State.FAIL),
    ],
)
def test_a_statement_in_xml_is_told_from_a_login_page(body, state):
    found = reads.judge_statement(200, None, version="R4", instead=reads.instead_of_statement(body))
    assert found.state is state


@pytest.mark.parametrize(
    ("search", "state", "word"),
    [
        (("Observation", "code"), State.OK, "all listed"),
        (("Observation", "date"), State.WARN, "Observation?date"),
        (("Condition", "code"), State.FAIL, "Condition"),
        (("Observation", "_include"), State.OK, "second call"),
    ],
)
def test_what_we_ask_is_compared_with_what_is_listed(search, state, word):
    found = reads.judge_offered(stated(), [Search(resource_type=search[0], parameters=((search[1], "x"),))])
    assert found.state is state
    assert word in found.said


def test_a_type_that_can_only_be_read_is_not_searched():
    search = Search(resource_type="Observation", parameters=(("code", "x"),))
    assert reads.judge_offered(stated(interaction=[{"code": "read"}]), [search]).state is State.FAIL


def test_what_is_offered_of_writing_is_told():
    assert reads.creates(None) == "FHIR create is not offered"
    told = reads.creates(stated(interaction=[{"code": "create"}], conditionalCreate=True))
    assert told == "FHIR create of Observation; conditional of Observation"


# -- searches and pages

REFUSED = errors.EmrBadResponse("status 404")


@pytest.mark.parametrize(
    ("by_post", "by_get", "is_get_set", "state"),
    [
        (None, None, False, State.OK),
        (None, None, True, State.WARN),
        (REFUSED, None, False, State.FAIL),
        (REFUSED, None, True, State.WARN),
        (REFUSED, REFUSED, False, State.FAIL),
    ],
)
def test_searches_should_go_out_by_post(by_post, by_get, is_get_set, state):
    assert reads.judge_post(by_post=by_post, by_get=by_get, is_get_set=is_get_set).state is state


def record(name="labs", resources=3, milliseconds=10.0, total=3):
    return FetchRecord(
        resource="Observation", resources=resources, pages=1, milliseconds=milliseconds, name=name, total=total
    )


@pytest.mark.parametrize(("milliseconds", "state"), [(4000.0, State.OK), (4001.0, State.WARN)])
def test_a_search_should_take_half_of_a_requests_time_at_the_most(milliseconds, state):
    assert reads.judge_search("search", record(milliseconds=milliseconds), deadline_s=8.0).state is state


@pytest.mark.parametrize(
    ("ids", "pages", "state"),
    [("abc", 2, State.OK), ("abc", 1, State.WARN), ("ab", 2, State.FAIL), ("abx", 2, State.FAIL)],
)
def test_pages_have_to_add_up_to_what_comes_at_once(ids, pages, state):
    paged = reads.Paged(name="labs", size=2, pages=pages, ids=frozenset(ids), at_once=frozenset("abc"))
    assert reads.judge_paging(paged).state is state
    assert "frozenset" not in repr(paged)


# -- facts, units and codes


def lab(fact_id, unit="%", *, value=30.0, code="4544-3"):
    return Lab(fact_id=fact_id, codes=(Code(LOINC, code),), at=NOW, known_at=NOW, value=value, unit=unit)


def facts(*labs):
    return PatientFacts(patient_id="p", demographics=Demographics(birth_date=None, sex=Sex.FEMALE), labs=labs)


SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        LabGroup(
            name="labs",
            analytes=(
                Analyte(system=LOINC, code="4544-3", name="hematocrit", unit="%"),
                Analyte(system=LOINC, code="718-7", name="hemoglobin", unit="g/dL"),
            ),
            statistics=(Statistic.COUNT,),
            lookback_days=30,
        ),
    ),
)


def test_units_are_counted_by_test_and_spelling():
    seen = reads.seen_in(
        SPEC, facts(lab("1"), lab("2", "furlong"), lab("3", "furlong"), lab("4", "furlong", value=None))
    )
    assert (seen.convertible, seen.tests, seen.never) == (1, 2, ("718-7 hemoglobin",))
    found = reads.judge_units("units", seen)
    assert found.state is State.FAIL
    assert found.said == "2 of 3 results in units without a conversion: 4544-3 in 'furlong' x2 (declared %)"


def test_a_code_that_never_came_is_information():
    seen = reads.seen_in(SPEC, facts(lab("1")))
    assert reads.judge_units("units", seen).state is State.OK
    found = reads.judge_codes("codes", seen)
    assert (found.state, found.said) == (State.OK, "1 of 2 declared tests never came: 718-7 hemoglobin")


def test_units_without_a_result_tell_nothing():
    assert reads.judge_units("units", reads.seen_in(SPEC, facts())).state is State.SKIPPED


@pytest.mark.parametrize(
    ("labs", "dropped", "state"),
    [
        ((lab("1"), lab("2"), lab("3")), {}, State.OK),
        ((lab("1"), lab("2")), {"labs.status_not_final": 1}, State.WARN),
        ((), {"labs.no_release_time": 3}, State.FAIL),
    ],
)
def test_a_kind_of_which_nothing_can_be_used_must_not_go_live(labs, dropped, state):
    assert reads.judge_facts("facts", facts(*labs), [record()], dropped, deadline_s=8.0).state is state


def test_an_empty_record_proves_nothing():
    found = reads.judge_facts("facts", facts(), [record(resources=0)], {}, deadline_s=8.0)
    assert (found.state, found.said) == (State.WARN, "nothing at all came of labs")


@pytest.mark.parametrize(("by_type_and_id", "state"), [(3, State.FAIL), (0, State.SKIPPED)])
def test_a_server_that_finds_nobody_by_an_id_alone_must_not_go_live(by_type_and_id, state):
    assert reads.judge_patient_parameter(by_type_and_id=by_type_and_id).state is state


# -- identifiers and writing


@pytest.mark.parametrize(
    ("with_csn", "writes", "state"),
    [(2, True, State.OK), (1, True, State.WARN), (0, True, State.FAIL), (0, False, State.WARN)],
)
def test_scores_need_contact_serial_numbers(with_csn, writes, state):
    encounter = wire.Encounter(id="e", identifier=(wire.Identifier(system="urn:x", value="hidden"),))
    found = reads.judge_encounters([encounter, encounter], with_csn=with_csn, writes=writes)
    assert found.state is state
    assert "hidden" not in found.said


def test_identifier_systems_that_are_set_have_to_be_there():
    patient = wire.Patient(id="p", identifier=(wire.Identifier(system="urn:mrn", value="hidden"),))
    assert reads.judge_identifiers(patient, systems={"MRN": "urn:mrn"}).said == "no type (urn:mrn) x1"
    assert reads.judge_identifiers(patient, systems={"MRN": "urn:other"}).state is State.WARN


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, False),
        ({"has_base": False}, True),
        ({"has_patient": False}, True),
        ({"environment": "PROD"}, True),
        ({"environment": "PROD", "repeated": "PROD"}, False),
        ({"environment": "PROD", "repeated": "prod"}, True),
        ({"is_prod_profile": True}, True),
        ({"is_prod_profile": True, "repeated": "TST"}, False),
        ({"repeated": "DEV"}, True),
    ],
)
def test_a_test_score_is_written_to_production_only_by_its_name(changes, is_refused):
    asked = {"environment": "TST", "is_prod_profile": False, "repeated": None, "has_base": True, "has_patient": True}
    assert (refusal(**{**asked, **changes}) is not None) is is_refused
