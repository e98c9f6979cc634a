"""What medication orders refer to: taken from what came, or looked up many at a time, and never elsewhere."""

from __future__ import annotations

import asyncio
import json

import pytest

from deployr_serve.adapters.fhir_medications import resolve_medications
from deployr_serve.adapters.fhir_search import Search
from deployr_serve.adapters.http import Response
from deployr_serve.core.errors import EmrUnreachable
from deployr_serve.core.ports import Budget

ORDERS = Search(resource_type="MedicationRequest", parameters=(("_include", "MedicationRequest:medication"),))


def drug(number):
    coding = {"system": "urn:rx", "code": str(number)}
    return {"resourceType": "Medication", "id": f"d{number}", "code": {"coding": [coding]}}


class Emr:
    """Answers searches for orders with ``page``, and for medications with those of ``held`` that are asked for."""

    def __init__(self, page, page_of, held=()):
        self._page = page
        self._page_of = page_of
        self._held = held
        self.asked = []
        self.underway = self.peak = 0

    async def send(self, request):
        kind, form = request.url.rsplit("/", 2)[1], dict(request.form)
        content = self._page
        if kind == "Medication":
            asked = form["_id"].split(",")
            self.asked.append(asked)
            self.underway += 1
            self.peak = max(self.peak, self.underway)
            await asyncio.sleep(0)
            self.underway -= 1
            if isinstance(self._held, BaseException):
                raise self._held
            content = self._page_of(*(it for it in self._held if it["id"] in asked))
        return Response(status=200, content_type="application/fhir+json", body=json.dumps(content).encode())


@pytest.fixture
def resolve(client_of, page_of, medication_request):
    """Give a function that resolves orders with these references against an EMR that holds these medications."""

    async def run(*references, held=(), included=()):
        orders = [
            medication_request(f"m{i}", medicationCodeableConcept=None, medicationReference=reference)
            for i, reference in enumerate(references)
        ]
        page = page_of(*orders)
        page["entry"] += [{"resource": it, "search": {"mode": "include"}} for it in included]
        emr = Emr(page, page_of, held)
        client = client_of(emr)
        named, records = await resolve_medications(
            client, await client.search(ORDERS), budget=Budget(deadline=9.0, correlation_id="c")
        )
        return {text: it.code.coding[0].code for text, it in named.items()}, records, emr

    return run


def to(reference):
    return {"reference": reference}


async def test_what_the_server_included_is_not_asked_for(resolve):
    named, records, emr = await resolve(to("Medication/d1"), to("Medication/d2"), included=[drug(1), drug(2)])
    assert named == {"Medication/d1": "1", "Medication/d2": "2"}
    assert (records, emr.asked) == ((), [])


async def test_what_was_not_included_is_asked_for_at_once_and_each_once(resolve):
    references = [to("Medication/d1"), to("Medication/d2"), to("Medication/d1"), to("Medication/d3/_history/4")]
    named, [record], emr = await resolve(*references, held=[drug(2), drug(3)], included=[drug(1)])
    assert named == {"Medication/d1": "1", "Medication/d2": "2", "Medication/d3/_history/4": "3"}
    assert emr.asked == [["d2", "d3"]]
    assert (record.resource, record.name, record.resources) == ("Medication", "medications.referenced", 2)


@pytest.mark.parametrize(("how_many", "batches"), [(1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
async def test_a_hundred_are_asked_for_at_a_time_and_all_hundreds_at_once(resolve, how_many, batches):
    drugs = [drug(number) for number in range(how_many)]
    named, records, emr = await resolve(*(to(f"Medication/{it['id']}") for it in drugs), held=drugs)
    assert len(named) == how_many
    assert [len(asked) for asked in emr.asked] == batches
    assert len(records) == emr.peak == len(batches)


@pytest.mark.parametrize(
    "reference",
    [
        to("https://other.example/fhir/Medication/d1"),
        to("http://emr.example/api/FHIR/R4/Medication/d1"),
        to("Substance/d1"),
        to("Medication/d1,d2"),
        to("Medication/"),
        to("#d1"),
        to("urn:uuid:d1"),
        {"identifier": {"value": "d1"}},
        {},
        None,
    ],
)
async def test_nothing_is_asked_for_that_is_not_this_servers_medication(resolve, reference):
    named, records, emr = await resolve(reference, held=[drug(1)], included=[drug(2)])
    assert (named, records, emr.asked) == ({}, (), [])


async def test_an_absolute_reference_to_this_server_is_followed(resolve, fhir_base):
    named, _, _ = await resolve(to(f"{fhir_base}/Medication/d1"), held=[drug(1)])
    assert named == {f"{fhir_base}/Medication/d1": "1"}


async def test_what_the_server_does_not_know_is_left_out(resolve):
    named, [record], _ = await resolve(to("Medication/d1"), to("Medication/d2"), held=[drug(2)])
    assert (named, record.resources) == ({"Medication/d2": "2"}, 1)


async def test_a_lookup_that_fails_fails_the_request(resolve):
    with pytest.raises(EmrUnreachable):
        await resolve(to("Medication/d1"), held=EmrUnreachable("down"))
