"""One call for all components, and more only where one answer cannot be the whole."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic_client import Meter, VendorClient
from deployr_serve.adapters.epic_components import SHIPPED, read_vendor_codes
from deployr_serve.adapters.epic_results import MAX_CALLS_BACK, PATH, ResultComponents
from deployr_serve.core.errors import EmrBadResponse, EmrIncomplete, EmrUnreachable

BASE = "https://emr.example/Interconnect"
CODES = msgspec.structs.replace(read_vendor_codes(SHIPPED), most_results=4)
HCT, HGB, WBC, PLT = CODES.components[:4]


class Site:
    """Holds results by base name, as (minutes ago, value), and answers like the vendor; newest first, 4 at most."""

    def __init__(self, now, *, says_what=True, ignores_from_instant=False, **results):
        self._now = now
        self._results = results
        self._says_what = says_what
        self._ignores_from_instant = ignores_from_instant
        self.asked = []

    def __call__(self, request):
        sent = json.loads(request.body)
        names = [one["Value"] for one in sent["ComponentTypes"]]
        self.asked.append((names, sent["FromInstant"]))
        until = self._now
        if sent["FromInstant"] and not self._ignores_from_instant:
            until = datetime.fromisoformat(sent["FromInstant"])
        since = until - timedelta(days=sent["NumberDaysToLookBack"])
        dated = sorted(
            (self._now - timedelta(minutes=minutes), name, value)
            for name in names
            for minutes, value in self._results.get(name, ())
        )
        rows = [self._row(at, name, value) for at, name, value in reversed(dated) if since <= at <= until]
        return {"ResultComponents": rows[: sent["MaxNumberOfResults"]] or None}

    def _row(self, at, name, value):
        row = {"Value": [str(value)], "Units": "", "ResultDate": f"{at:%m/%d/%Y}", "ResultTime": f"{at:%I:%M %p}"}
        return {**row, "ComponentID": [{"ID": name, "Type": "base-name"}]} if self._says_what else row


@pytest.fixture
def read(clock, transport_of, now):
    """Give a function that reads these components of the last 30 days from what answers so."""

    async def run(answer, *components):
        transport = transport_of(answer)
        client = VendorClient(base=BASE, transport=transport, credentials=NoCredentials(), clock=clock)
        reader = ResultComponents(client, codes=CODES, zone=UTC, user={"UserID": "u", "UserIDType": "External"})
        meter = Meter(resource="ResultComponents", name="labs", clock=clock)
        patient = {"PatientID": "T1", "PatientIDType": "FHIR STU3"}
        since = now - timedelta(days=30)
        results = await reader.read(patient, components, since=since, meter=meter, budget=None)
        again = await reader.read(patient, components, since=since, meter=meter, budget=None)
        assert values(again) == values(results)
        return results, transport, meter

    return run


def values(results):
    return sorted((component.base_name, result.value[0]) for component, result in results)


async def test_all_components_are_asked_for_in_one_call(read, now):
    site = Site(now, HCT=[(5, 30)], WBC=[(6, 11), (7, 12)])
    results, transport, meter = await read(site, HCT, HGB, WBC)
    assert values(results) == [("HCT", "30"), ("WBC", "11"), ("WBC", "12")]
    assert site.asked == [(["HCT", "HGB", "WBC"], "")] * 2
    assert (meter.calls, meter.requests) == (2, 2)
    request = transport.requests[0]
    assert (request.method, request.url, request.repeatable) == ("POST", f"{BASE}/{PATH}", True)
    assert json.loads(request.body) == {
        "PatientID": "T1",
        "PatientIDType": "FHIR STU3",
        "UserID": "u",
        "UserIDType": "External",
        "NumberDaysToLookBack": 31,  # 30 days and one more, so that a calendar's rounding loses nothing
        "MaxNumberOfResults": 4,
        "FromInstant": "",
        "ComponentTypes": [{"Value": name, "Type": "base-name"} for name in ("HCT", "HGB", "WBC")],
    }
    assert "T1" not in repr(request)


async def test_null_means_that_there_are_no_results(read):
    results, _, _ = await read({"ResultComponents": None}, HCT, HGB)
    assert results == []


@pytest.mark.parametrize("body", [{}, {"ResultComponents": "none"}, {"ResultComponents": [{"Units": "%"}]}, [], b"x"])
async def test_an_answer_without_its_members_is_none(read, body):
    with pytest.raises(EmrBadResponse):
        await read(body, HCT)


async def test_a_full_answer_is_asked_for_again_in_halves(read, now):
    site = Site(now, HCT=[(1, 30), (2, 31)], HGB=[(3, 10)], WBC=[(4, 11), (5, 12)])
    results, _, _ = await read(site, HCT, HGB, WBC, PLT)
    # Five results, of which one answer shows four: which of them is missing nobody can say.
    assert len(results) == 5
    assert [names for names, _ in site.asked[:3]] == [["HCT", "HGB", "WBC", "PLT"], ["HCT", "HGB"], ["WBC", "PLT"]]


async def test_exactly_as_many_as_the_limit_may_have_been_cut_off(read, now):
    site = Site(now, HCT=[(1, 30), (2, 31)], HGB=[(3, 10), (4, 11)])
    results, _, _ = await read(site, HCT, HGB)
    assert len(results) == 4
    assert [names for names, _ in site.asked[:3]] == [["HCT", "HGB"], ["HCT"], ["HGB"]]


async def test_too_many_results_of_one_component_are_read_in_steps_back_in_time(read, now):
    site = Site(now, HCT=[(minutes, minutes) for minutes in range(10)])
    results, _, _ = await read(site, HCT)
    assert values(results) == sorted(("HCT", str(minutes)) for minutes in range(10))
    # now is 20:55; each answer shows four and the next begins with the last of them.
    assert [instant[11:16] for _, instant in site.asked[:4]] == ["", "20:52", "20:49", "20:46"]


async def test_two_results_of_the_minute_between_two_answers_are_not_lost(read, now):
    # The first answer ends in the middle of a minute with three results, of which two look the same.
    site = Site(now, HCT=[(0, 1), (1, 2), (2, 3), (3, 4), (3, 5), (3, 5), (4, 6)])
    results, _, _ = await read(site, HCT)
    assert sorted(result.value[0] for _, result in results) == ["1", "2", "3", "4", "5", "5", "6"]


async def test_a_site_that_leaves_out_the_instant_to_look_back_from_cannot_be_read_in_steps(read, now):
    site = Site(now, HCT=[(minutes, minutes) for minutes in range(6)])

    def exclusive(request):
        sent = json.loads(request.body)
        if sent["FromInstant"]:
            earlier = datetime.fromisoformat(sent["FromInstant"]) - timedelta(minutes=1)
            sent["FromInstant"] = earlier.isoformat()
        return site(dataclasses.replace(request, body=json.dumps(sent).encode()))

    with pytest.raises(EmrIncomplete):
        await read(exclusive, HCT)


async def test_results_that_cannot_be_had_whole_fail_and_are_not_taken_for_all(read, now):
    with pytest.raises(EmrIncomplete):
        await read(Site(now, ignores_from_instant=True, HCT=[(minutes, minutes) for minutes in range(10)]), HCT)
    with pytest.raises(EmrIncomplete):
        await read(Site(now, HCT=[(5, value) for value in range(10)]), HCT)
    with pytest.raises(EmrIncomplete):
        await read(Site(now, HCT=[(minutes, minutes) for minutes in range(4 * MAX_CALLS_BACK)]), HCT)


async def test_a_full_answer_with_an_undated_result_cannot_be_made_whole(read):
    row = {"Value": ["1"], "ResultDate": None, "ResultTime": None}
    with pytest.raises(EmrIncomplete):
        await read({"ResultComponents": [row] * 4}, HCT)


async def test_a_site_that_does_not_say_what_a_result_is_of_is_asked_one_by_one_from_then_on(clock, transport_of, now):
    site = Site(now, says_what=False, HCT=[(1, 30)], HGB=[(1, 10)])
    client = VendorClient(base=BASE, transport=transport_of(site), credentials=NoCredentials(), clock=clock)
    reader = ResultComponents(client, codes=CODES, zone=UTC, user={})
    meter = Meter(resource="ResultComponents", name="labs", clock=clock)
    for _ in range(2):
        results = await reader.read({}, (HCT, HGB), since=now - timedelta(days=1), meter=meter, budget=None)
        assert values(results) == [("HCT", "30"), ("HGB", "10")]
    assert [names for names, _ in site.asked] == [["HCT", "HGB"], ["HCT"], ["HGB"], ["HCT"], ["HGB"]]


async def test_results_of_another_component_than_the_one_asked_for_are_refused(read):
    row = {"Value": ["1"], "ResultDate": "01/06/2015", "ResultTime": "1:05 PM", "ComponentID": "HGB"}
    with pytest.raises(EmrBadResponse):
        await read({"ResultComponents": [row]}, HCT)
    results, _, _ = await read({"ResultComponents": [{**row, "ComponentID": "4711"}]}, HCT)
    assert values(results) == [("HCT", "1")]  # a number of the site's own contradicts nothing


async def test_one_failure_among_the_halves_fails_the_read(clock, transport_of, now, status_of):
    site = Site(now, HCT=[(1, 30), (2, 31)], HGB=[(3, 10), (4, 11)])

    def answer(request):
        return status_of(503) if request.body.count(b"base-name") == 1 else site(request)

    client = VendorClient(base=BASE, transport=transport_of(answer), credentials=NoCredentials(), clock=clock)
    reader = ResultComponents(client, codes=CODES, zone=UTC, user={})
    meter = Meter(resource="ResultComponents", name="labs", clock=clock)
    with pytest.raises(EmrUnreachable):
        await reader.read({}, (HCT, HGB), since=now - timedelta(days=1), meter=meter, budget=None)
