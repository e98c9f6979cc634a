"""Each guard that is switched off must break a row: otherwise the rows would pass for another reason than it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import count
from urllib.parse import urljoin

import pytest
from lxml import etree

from deployr_serve.adapters import (
    auth,
    auth_smart,
    caller_jwt,
    cosmos_container,
    fhir_about,
    fhir_matches,
    fhir_search,
    fhir_source,
    json_callers,
    outputs_fhir,
    outputs_vendor,
    token_cache,
)
from deployr_serve.core import allowance, caller, guarded_output, json_caller
from deployr_serve.triggers import bpa_request, bpa_xml, cds_cards
from tests.faults.bed.rows import channel_of, read_row
from tests.faults.bed.table import row_file
from tests.faults.test_rows import RUN


def anywhere(url, origins):
    return True


def without_origin_of_token_endpoint(patch):
    patch.setattr(auth_smart, "may_receive", anywhere)


def without_origin_of_next_page(patch):
    def follow(client, page):
        links = fhir_matches.next_links(page)
        return urljoin(f"{client.base}/", links[0]) if links else None

    patch.setattr(fhir_search.FhirClient, "_next_page", follow)
    # The second wall: credentials go nowhere else, whoever wants to send them.
    patch.setattr(auth, "may_receive", anywhere)


def without_subject(patch):
    patch.setattr(fhir_about, "_is_about", lambda *_: True)


def without_completeness(patch):
    patch.setattr(fhir_matches.Matches, "insist_on_all", lambda *_: None)


def without_duplicates_by_id(patch):
    add = fhir_matches.Matches.add

    def add_all(matches, page):
        every = matches.__dict__.setdefault("every", [])
        every += [entry.resource for entry in page.entry]
        return add(matches, page)

    patch.setattr(fhir_matches.Matches, "add", add_all)
    patch.setattr(fhir_matches.Matches, "resources", lambda matches, _: tuple(matches.every))


def without_newest_version(patch):
    patch.setattr(fhir_matches, "_newer", lambda _, came: came)


def without_duplicates_by_identifier(patch):
    patch.setattr(fhir_matches, "_without_twins", lambda resources, _: tuple(resources))


def without_single_flight(patch):
    async def join(flights, name, work, *, timeout_s=None):
        return await work()

    patch.setattr(token_cache.Flights, "join", join)


def without_signature_of_caller(patch):
    patch.setattr(caller_jwt, "_is_signed_by", anywhere)


def without_place_of_keys(patch):
    patch.setattr(caller, "_is_same_place", anywhere)


def without_one_use_of_a_token(patch):
    numbers, check = count(), caller.check_claims

    def check_and_forget(*args, **kwargs):
        return replace(check(*args, **kwargs), used_id=str(next(numbers)))

    patch.setattr(caller_jwt, "check_claims", check_and_forget)


def without_agreement_on_who_this_is(patch):
    patch.setattr(fhir_source, "_insist_on_agreement", lambda *_: None)


def without_the_gateways_proof(patch):
    patch.setattr(json_callers, "is_of_gateway", anywhere)


def without_tenants_of_callers(patch):
    patch.setattr(json_callers, "tenant_of", lambda _, tenants: tenants[0])


def without_models_of_callers(patch):
    patch.setattr(json_caller.JsonCaller, "may_ask", anywhere)


def without_an_allowance(patch):
    patch.setattr(allowance.Allowance, "wait_s", lambda *_, **__: 0)


def without_html_taken_out(patch):
    patch.setattr(cds_cards, "_without_html", lambda text: text)


def without_refusal_of_a_doctype(patch):
    class Trusting:
        def __getattr__(self, name):
            return getattr(etree, name)

        def XMLParser(self, **_):  # noqa: N802 lxml's name
            return etree.XMLParser(encoding="utf-8", resolve_entities=True, load_dtd=True, no_network=False)

    patch.setattr(bpa_xml, "_etree", Trusting)
    patch.setattr(bpa_xml, "_BEFORE_ROOT", re.compile(""))
    patch.setattr(bpa_xml, "_has_doctype", lambda _: False)


def without_one_patient_a_document(patch):
    def take_the_first(document, roots):
        [first, *_] = document.iter(f"{{{bpa_request.CDA}}}recordTarget")
        elements = first.findall(f"{{{bpa_request.CDA}}}patientRole/{{{bpa_request.CDA}}}id")
        return bpa_request._identifiers(elements, roots)[:1]

    patch.setattr(bpa_request, "_patient", take_the_first)


def without_a_look_at_the_packet(patch):
    patch.setattr(guarded_output, "check_sendable", lambda *_, **__: None)


def without_the_order_of_scores(patch):
    async def nothing(*_, **__):
        return None

    patch.setattr(guarded_output.GuardedOutput, "_claim", nothing)
    patch.setattr(guarded_output.GuardedOutput, "_release", nothing)


def without_reading_back(patch):
    async def is_there(*_, **__):
        return False

    patch.setattr(outputs_vendor.Flowsheet, "_is_there", is_there)


def without_a_look_for_the_identifier(patch):
    async def is_there(*_, **__):
        return False

    patch.setattr(outputs_fhir.FhirWriter, "_is_there", is_there)


def without_one_try_for_a_message(patch):
    patch.setattr(outputs_vendor, "_was_not_taken", lambda _: True)


def without_reading_back_from_the_store(patch):
    async def never():
        return None

    patch.setattr(cosmos_container.CosmosContainer, "_landed", lambda *_: never)


GUARDS = {
    "origin of the token endpoint": (without_origin_of_token_endpoint, "E", 75, "to the foreign host"),
    "origin of the next page": (without_origin_of_next_page, "F", 97, "to the foreign host"),
    "subject": (without_subject, "F", 95, "expected a packet rejected, got ['scored']"),
    "completeness": (without_completeness, "F", 99, "expected a packet failed, got ['scored']"),
    "de-duplication by id": (without_duplicates_by_id, "F", 101, "count = 1.0, got 2.0"),
    "the newest of two versions": (without_newest_version, "F", 101, "last = 35.0, got 37.13579"),
    "de-duplication by identifier": (without_duplicates_by_identifier, "F", 101, "count = 1.0, got 2.0"),
    "single flight of the token": (without_single_flight, "E", 81, "expected 1 calls of token"),
    "signature of a caller": (without_signature_of_caller, "A", 17, "expected status 401, got 200"),
    "place of a caller's keys": (without_place_of_keys, "A", 6, "expected status 401, got 200"),
    "one use of a token": (without_one_use_of_a_token, "A", 14, "expected status 401, got 200"),
    "proof of the gateway": (without_the_gateways_proof, "A", 23, "expected status 401, got 200"),
    "tenant of a caller": (without_tenants_of_callers, "A", 26, "expected status 403, got 200"),
    "models of a caller": (without_models_of_callers, "A", 26, "expected status 404, got 200"),
    "allowance of a caller": (without_an_allowance, "A", 27, "expected status 429, got 200"),
    "agreement on who this is": (without_agreement_on_who_this_is, "D", 69, "expected no cards"),
    "no DOCTYPE": (without_refusal_of_a_doctype, "C", 45, "expected rejected malformed-request, got scored"),
    "one patient a document": (without_one_patient_a_document, "C", 51, "rejected ambiguous-patient, got scored"),
    "the header alone says who": (without_one_patient_a_document, "C", 57, "rejected missing-patient, got scored"),
    "HTML": (without_html_taken_out, "D", 71, "its schema refuses"),
    "environment of the packet": (without_a_look_at_the_packet, "G", 125, "expected the EMR to hold 0 scores, got 1"),
    "score that may be shown": (without_a_look_at_the_packet, "G", 126, "expected the EMR to hold 0 scores, got 1"),
    "order of scores": (without_the_order_of_scores, "G", 127, "got ('sent', 'sent')"),
    "reading back a flowsheet": (without_reading_back, "G", 119, "expected the EMR to hold 1 scores, got 2"),
    "one try for a message": (without_one_try_for_a_message, "G", 119, "expected the EMR to hold 1 scores, got 2"),
    "reading back from the store": (without_reading_back_from_the_store, "H", 131, "expected 200, got 503"),
    "looking for the identifier": (without_a_look_for_the_identifier, "G", 122, "to hold 1 scores, got 2"),
}
"""By name: what switches it off, the row that must notice, and what it must notice."""


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_guard_that_is_switched_off_breaks_its_row(guard, bed, monkeypatch):
    switch_off, group, number, symptom = GUARDS[guard]
    row = read_row(row_file(group, number))
    switch_off(monkeypatch)
    problems = []
    for case in row.cases:
        problems += await RUN[channel_of(row, case)](case, bed)
        if any(symptom in problem for problem in problems):
            return
    pytest.fail("\n".join(problems) or f"row {number} noticed nothing")
