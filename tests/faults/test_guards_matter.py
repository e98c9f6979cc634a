"""Each guard that is switched off must break a row: otherwise the rows would pass for another reason than it."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from deployr_serve.adapters import auth, auth_smart, fhir_matches, fhir_search, fhir_source, token_cache
from tests.faults.bed.rows import read_row
from tests.faults.bed.runner import run_case
from tests.faults.bed.table import row_file


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
    patch.setattr(fhir_source.FhirSource, "_is_about", lambda *_: True)


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


GUARDS = {
    "origin of the token endpoint": (without_origin_of_token_endpoint, "E", 75, "to the foreign host"),
    "origin of the next page": (without_origin_of_next_page, "F", 97, "to the foreign host"),
    "subject": (without_subject, "F", 95, "expected a packet rejected, got ['scored']"),
    "completeness": (without_completeness, "F", 99, "expected a packet failed, got ['scored']"),
    "de-duplication by id": (without_duplicates_by_id, "F", 101, "count = 1.0, got 2.0"),
    "the newest of two versions": (without_newest_version, "F", 101, "last = 35.0, got 37.13579"),
    "de-duplication by identifier": (without_duplicates_by_identifier, "F", 101, "count = 1.0, got 2.0"),
    "single flight of the token": (without_single_flight, "E", 81, "expected 1 calls of token"),
}
"""By name: what switches it off, the row that must notice, and what it must notice."""


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_guard_that_is_switched_off_breaks_its_row(guard, bed, monkeypatch):
    switch_off, group, number, symptom = GUARDS[guard]
    row = read_row(row_file(group, number))
    switch_off(monkeypatch)
    problems = []
    for case in row.cases:
        problems += await run_case(case, bed)
        if any(symptom in problem for problem in problems):
            return
    pytest.fail("\n".join(problems) or f"row {number} noticed nothing")
