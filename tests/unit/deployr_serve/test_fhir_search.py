"""Searches: every page, complete, from the EMR's own origin only."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from deployr_serve.adapters import fhir_search
from deployr_serve.adapters.fhir_search import Search
from deployr_serve.adapters.http import Response
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrIncomplete,
    EmrRefused,
    EmrThrottled,
    EmrTimeout,
    EmrTooLarge,
    EmrUnreachable,
    Restricted,
)
from deployr_serve.core.ports import Budget

SEARCH = Search(resource_type="Observation", parameters=(("patient", "p1"), ("code", "http://loinc.org|4544-3")))


@pytest.fixture
def search(transport_of, client_of):
    """Give a function that searches a server that answers so, and gives what was found."""

    async def run(*answers, **options):
        return await client_of(transport_of(*answers), **options).search(SEARCH, name="labs")

    return run


def ids(found):
    return [resource.id for resource in found.resources]


# -- what is sent


async def test_the_patients_id_goes_out_in_a_body_and_not_in_the_url(transport_of, client_of, page_of, fhir_base):
    transport = transport_of(page_of())
    await client_of(transport).search(SEARCH)
    [request] = transport.requests
    assert (request.method, request.url) == ("POST", f"{fhir_base}/Observation/_search")
    assert request.form == (*SEARCH.parameters, ("_count", "1000"))
    assert request.headers["Accept"] == "application/fhir+json"


async def test_a_server_without_search_by_post_is_asked_by_get(transport_of, client_of, page_of, fhir_base):
    transport = transport_of(page_of())
    await client_of(transport, search_by_get=True, page_size=50).search(SEARCH)
    [request] = transport.requests
    query = "patient=p1&code=http%3A%2F%2Floinc.org%7C4544-3&_count=50"
    assert (request.method, request.url, request.form) == ("GET", f"{fhir_base}/Observation?{query}", None)


@pytest.mark.parametrize("by_get", [False, True])
async def test_a_server_that_finds_nothing_by_an_id_alone_is_asked_by_type_and_id(
    by_get, transport_of, client_of, page_of, fhir_base
):
    transport = transport_of(page_of())
    await client_of(transport, typed_patients=True, search_by_get=by_get).search(SEARCH)
    [request] = transport.requests
    query = "patient=Patient%2Fp1&code=http%3A%2F%2Floinc.org%7C4544-3&_count=1000"
    form = (("patient", "Patient/p1"), *SEARCH.parameters[1:], ("_count", "1000"))
    assert (request.url, request.form) == (
        (f"{fhir_base}/Observation?{query}", None) if by_get else (f"{fhir_base}/Observation/_search", form)
    )


async def test_no_request_or_search_shows_its_parameters(transport_of, client_of, page_of):
    transport = transport_of(page_of())
    await client_of(transport).search(SEARCH)
    assert "p1" not in repr(transport.requests) + repr(SEARCH)


# -- pages


async def test_one_page_is_all_there_is_without_a_next_link(search, page_of, observation):
    found = await search(page_of(observation("a"), observation("b"), total=2))
    assert ids(found) == ["a", "b"]
    assert (found.record.resource, found.record.resources, found.record.pages) == ("Observation", 2, 1)


async def test_an_empty_search_finds_nothing(search, page_of):
    assert ids(await search(page_of(total=0))) == []
    without_entry = {"resourceType": "Bundle", "type": "searchset", "total": 0}
    assert ids(await search(without_entry)) == []


async def test_all_pages_are_read_in_order(transport_of, client_of, page_of, observation, fhir_base):
    transport = transport_of(
        page_of(observation("a"), following=f"{fhir_base}/Observation?page=2", total=3),
        page_of(following=f"{fhir_base}/Observation?page=3"),
        page_of(observation("b"), observation("c")),
    )
    found = await client_of(transport).search(SEARCH)
    assert ids(found) == ["a", "b", "c"]
    assert found.record.pages == 3
    assert [(request.method, request.form) for request in transport.requests[1:]] == [("GET", None)] * 2


@pytest.mark.parametrize("following", ["Observation?page=2", "?page=2", "/api/FHIR/R4/Observation?page=2"])
async def test_a_relative_next_link_is_resolved_against_the_base(
    transport_of, client_of, page_of, observation, fhir_base, following
):
    transport = transport_of(page_of(following=following), page_of(observation()))
    found = await client_of(transport).search(SEARCH)
    assert ids(found) == ["lab1"]
    assert transport.requests[1].url.startswith(f"{fhir_base}/")


async def test_the_default_port_may_be_spelt_out(transport_of, client_of, page_of, observation):
    base = "https://emr.example:443/fhir"
    transport = transport_of(page_of(following=f"{base}/Observation?page=2"), page_of(observation()))
    assert ids(await client_of(transport, base=base).search(SEARCH)) == ["lab1"]


@pytest.mark.parametrize(
    "following",
    [
        "https://other.example/api/FHIR/R4/Observation?page=2",
        "http://emr.example/api/FHIR/R4/Observation?page=2",
        "https://emr.example:444/api/FHIR/R4/Observation?page=2",
        "https://emr.example.other.example/api/FHIR/R4/Observation?page=2",
        "https://emr.example@other.example/api/FHIR/R4/Observation?page=2",
        "https://user:pass@emr.example/api/FHIR/R4/Observation?page=2",
        "//other.example/api/FHIR/R4/Observation?page=2",
        "https://emr.example/api/FHIR/STU3/Observation?page=2",
        "https://emr.example/api/FHIR/R40/Observation?page=2",
        "/admin?page=2",
        "../../../admin",
        "https://emr.example/api/FHIR/R4/../../../admin",
        "https://emr.example/api/FHIR/R4/%2e%2e/%2E%2E/admin",
        "https://emr.example/api/FHIR/R4/./Observation",
        "https://emr.example:port/api/FHIR/R4/Observation",
        "https://[emr.example/api/FHIR/R4/Observation",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:application/json,{}",
    ],
)
async def test_a_next_link_that_leads_elsewhere_is_refused_before_anything_is_sent_there(
    transport_of, client_of, page_of, observation, following
):
    transport = transport_of(page_of(observation(), following=following))
    with pytest.raises(EmrBadResponse, match="own origin"):
        await client_of(transport).search(SEARCH)
    assert len(transport.requests) == 1


async def test_two_next_links_are_refused(search, page_of, fhir_base):
    links = [{"relation": "next", "url": f"{fhir_base}/Observation?page={page}"} for page in (2, 3)]
    with pytest.raises(EmrBadResponse, match="one next page"):
        await search(page_of(link=links))


async def test_a_page_that_leads_to_itself_is_a_loop(search, page_of, observation, fhir_base):
    page = page_of(observation(), following=f"{fhir_base}/Observation?page=2")
    with pytest.raises(EmrTooLarge, match="loop"):
        await search(page, page)


async def test_pages_that_lead_to_each_other_are_a_loop(search, page_of, observation, fhir_base):
    there, back = f"{fhir_base}/Observation?page=2", f"{fhir_base}/Observation?page=3"
    with pytest.raises(EmrTooLarge, match="loop"):
        await search(page_of(following=there), page_of(following=back), page_of(following=there))


@pytest.fixture
def endless(page_of, observation, fhir_base):
    """Give a server that has one more page, always."""
    page = 0

    def answer(_):
        nonlocal page
        page += 1
        return page_of(observation(f"lab{page}"), following=f"{fhir_base}/Observation?page={page + 1}")

    return answer


async def test_fifty_pages_are_read_and_no_more(transport_of, client_of, page_of, observation, fhir_base, endless):
    transport = transport_of(endless)
    with pytest.raises(EmrTooLarge, match="at most 50 pages"):
        await client_of(transport).search(SEARCH)
    assert len(transport.requests) == 50
    pages = [page_of(observation(f"l{i}"), following=f"{fhir_base}/Observation?page={i}") for i in range(49)]
    found = await client_of(transport_of(*pages, page_of(observation("last")))).search(SEARCH)
    assert (found.record.pages, len(found.resources)) == (50, 50)


async def test_more_resources_than_anybody_has_are_refused(search, monkeypatch, endless):
    monkeypatch.setattr(fhir_search, "MAX_RESOURCES", 3)
    with pytest.raises(EmrTooLarge, match="3 resources"):
        await search(endless)


async def test_a_page_may_be_empty_but_not_page_after_page(search, page_of, observation, fhir_base):
    empty = [page_of(following=f"{fhir_base}/Observation?page={page}") for page in range(4)]
    assert ids(await search(*empty[:3], page_of(observation()))) == ["lab1"]
    with pytest.raises(EmrTooLarge, match="without a match"):
        await search(*empty, page_of(observation()))


async def test_pages_that_grow_count_all_that_is_on_them(search, monkeypatch, page_of, observation, fhir_base):
    monkeypatch.setattr(fhir_search, "MAX_RESOURCES", 5)
    pages = [
        page_of(*map(observation, "abcd"[:size]), following=f"{fhir_base}/Observation?page={size}")
        for size in (1, 2, 3)
    ]
    with pytest.raises(EmrTooLarge):
        await search(*pages, page_of())


async def test_more_bytes_than_any_record_holds_are_refused(search, monkeypatch, page_of, observation, fhir_base):
    pages = [page_of(observation("a"), following=f"{fhir_base}/Observation?page=2"), page_of(observation("b"))]
    monkeypatch.setattr(fhir_search, "MAX_BYTES", 100)
    with pytest.raises(EmrTooLarge, match="bytes"):
        await search(*pages)


@pytest.mark.parametrize("by_get", [True, False])
async def test_a_next_page_that_is_the_first_one_is_a_loop(transport_of, client_of, page_of, fhir_base, by_get):
    def answer(request):
        return page_of(following=request.url)

    transport = transport_of(answer)
    with pytest.raises(EmrTooLarge, match="loop"):
        await client_of(transport, search_by_get=by_get).search(SEARCH)
    assert len(transport.requests) <= 2


# -- cursors that expire


EXPIRED = {
    "404": Response(status=404, content_type="text/html", body=b""),
    "410": Response(status=410, content_type="text/html", body=b""),
    "4113 under 400": Response(
        status=400,
        content_type="application/fhir+json",
        body=b'{"resourceType":"OperationOutcome","issue":[{"severity":"fatal","code":"processing",'
        b'"details":{"coding":[{"system":"urn:oid:1.2.840.114350.1.13.0.1.7.2.657369","code":"4113"}]}}]}',
    ),
    "4113 under 200": {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "fatal", "details": {"coding": [{"code": "4113"}]}}],
    },
}


@pytest.mark.parametrize("expired", EXPIRED.values(), ids=EXPIRED.keys())
async def test_a_search_whose_pages_expired_is_started_over_once(
    transport_of, client_of, page_of, observation, fhir_base, expired
):
    first = page_of(observation("a"), following=f"{fhir_base}/Observation?page=2", total=2)
    transport = transport_of(first, expired, first, page_of(observation("b")))
    found = await client_of(transport).search(SEARCH)
    assert ids(found) == ["a", "b"]
    assert (found.record.pages, found.record.requests) == (2, 4)
    with pytest.raises(EmrBadResponse, match="expired"):
        await client_of(transport_of(first, expired, first, expired)).search(SEARCH)


@pytest.mark.parametrize("expired", EXPIRED.values(), ids=EXPIRED.keys())
async def test_what_says_the_same_of_the_first_page_is_no_expired_cursor(transport_of, client_of, expired):
    transport = transport_of(expired)
    with pytest.raises(EmrBadResponse):
        await client_of(transport).search(SEARCH)
    assert len(transport.requests) == 1


# -- complete


@pytest.mark.parametrize("total", [3, 1000])
async def test_fewer_matches_than_the_server_counted_are_never_taken_for_all(search, page_of, observation, total):
    with pytest.raises(EmrIncomplete, match="got fewer"):
        await search(page_of(observation("a"), observation("b"), total=total))


async def test_the_count_holds_over_all_pages(search, page_of, observation, fhir_base):
    first = page_of(observation("a"), following=f"{fhir_base}/Observation?page=2", total=3)
    with pytest.raises(EmrIncomplete, match="got fewer"):
        await search(first, page_of(observation("b")))


async def test_a_server_that_does_not_count_is_believed(search, page_of, observation):
    assert ids(await search(page_of(observation("a")))) == ["a"]


@pytest.mark.parametrize("total", [0, 1])
async def test_a_server_that_counts_too_few_is_believed_for_what_came(search, page_of, observation, total):
    found = await search(page_of(observation("a"), observation("b"), total=total))
    assert ids(found) == ["a", "b"]
    assert found.record.total == total


@pytest.mark.parametrize(("first_says", "second_says"), [(1, 3), (3, 1)])
async def test_the_largest_of_the_pages_totals_is_the_one_to_reach(
    search, page_of, observation, fhir_base, first_says, second_says
):
    first = page_of(observation("a"), following=f"{fhir_base}/Observation?page=2", total=first_says)
    with pytest.raises(EmrIncomplete):
        await search(first, page_of(observation("b"), total=second_says))


FULL = "full to its last place"


async def test_a_full_page_without_total_and_next_is_not_believed_to_be_all(search, page_of, observation):
    page = page_of(observation("a"), observation("b"))
    with pytest.raises(EmrIncomplete, match=FULL):
        await search(page, page, page_size=2)
    assert ids(await search(page, page_size=3)) == ["a", "b"]


async def test_a_full_page_is_all_if_the_server_counts_no_more_when_it_is_asked(
    transport_of, client_of, page_of, observation
):
    page = page_of(observation("a"), observation("b"))
    transport = transport_of(page, page_of(total=2))
    found = await client_of(transport, page_size=2).search(SEARCH)
    assert ids(found) == ["a", "b"]
    assert transport.requests[1].form == (*SEARCH.parameters, ("_summary", "count"))
    assert found.record.requests == 2
    with pytest.raises(EmrIncomplete, match="got fewer"):
        await client_of(transport_of(page, page_of(total=3)), page_size=2).search(SEARCH)


@pytest.mark.parametrize("answer", [b"<html>", Response(status=400, content_type="text/html", body=b"")])
async def test_a_server_that_cannot_count_leaves_a_full_page_in_doubt(search, page_of, observation, answer):
    with pytest.raises(EmrIncomplete, match=FULL):
        await search(page_of(observation("a")), answer, page_size=1)


async def test_a_page_size_of_the_servers_own_is_a_full_page_too(search, page_of, observation, fhir_base):
    capped = {"link": [{"relation": "self", "url": f"{fhir_base}/Observation?patient=p1&_count=2"}]}
    page = page_of(observation("a"), observation("b"), **capped)
    with pytest.raises(EmrIncomplete, match=FULL):
        await search(page, page)
    assert ids(await search({**page, "total": 2})) == ["a", "b"]


@pytest.mark.parametrize("url", ["https://[x/?_count=1", "?_count=one", "?_count=1&_count=2", "?_count="])
async def test_an_odd_self_link_says_nothing_about_the_page_size(search, page_of, observation, url):
    assert ids(await search(page_of(observation("a"), link=[{"relation": "self", "url": url}]))) == ["a"]


async def test_included_resources_are_no_matches_of_the_count(search, page_of, observation, patient):
    page = page_of(observation("a"), total=2)
    page["entry"].append({"resource": patient(), "search": {"mode": "include"}})
    with pytest.raises(EmrIncomplete):
        await search(page)


async def test_a_match_that_slid_to_the_next_page_stands_for_no_other(search, page_of, observation, fhir_base):
    following = f"{fhir_base}/Observation?page=2"
    first = page_of(observation("a"), observation("b"), following=following, total=4)
    with pytest.raises(EmrIncomplete):
        await search(first, page_of(observation("b"), observation("c")))
    first["total"] = 3
    assert ids(await search(first, page_of(observation("b"), observation("c")))) == ["a", "b", "c"]


async def test_a_match_twice_in_one_page_was_counted_twice(search, page_of, observation):
    assert ids(await search(page_of(observation("a"), observation("a"), total=2))) == ["a"]


async def test_a_result_on_two_pages_is_found_once_in_its_newest_version(search, page_of, observation, fhir_base):
    old = observation("a", meta={"lastUpdated": "2015-01-06T10:00:00Z"}, status="preliminary")
    new = observation("a", meta={"lastUpdated": "2015-01-06T11:00:00Z"})
    following = f"{fhir_base}/Observation?page=2"
    for first, second in ((old, new), (new, old)):
        [found] = (await search(page_of(first, following=following), page_of(second))).resources
        assert found.status == "final"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"versionId": "9"}, {"versionId": "10"}),
        ({"versionId": "2", "lastUpdated": "2016-01-01T00:00:00Z"}, {"versionId": "3"}),
        ({"lastUpdated": "2015-01-06T10:00:00+02:00"}, {"lastUpdated": "2015-01-06T09:00:00Z"}),
        ({"versionId": "b", "lastUpdated": "2015-01-06T10:00:00Z"}, {"versionId": "a", "lastUpdated": "2016-01-01"}),
        ({"lastUpdated": "yesterday"}, {"lastUpdated": "2015-01-06T10:00:00Z"}),
    ],
)
async def test_versions_are_compared_as_numbers_and_times_as_instants(search, page_of, observation, older, newer):
    old, new = observation("a", meta=older, status="preliminary"), observation("a", meta=newer)
    for pair in ((old, new), (new, old)):
        [found] = (await search(page_of(*pair))).resources
        assert found.status == "final"


async def test_one_result_under_two_ids_is_found_once_and_counted(search, page_of, observation):
    identifier = [{"system": "urn:lab", "value": "77"}]
    old = observation("a", identifier=identifier, issued="2015-01-06T19:00:00Z")
    new = observation("b", identifier=identifier, issued="2015-01-06T20:00:00Z", status="corrected")
    for pair in ((old, new), (new, old)):
        found = await search(page_of(*pair, total=2))
        assert ids(found) == ["b"]
        assert found.dropped == {"Observation.same_identifier": 1}


@pytest.mark.parametrize(
    "difference",
    [
        {"code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}},
        {"effectiveDateTime": "2015-01-05T18:55:00Z"},
        {"identifier": [{"system": "urn:lab", "value": "78"}]},
        {"identifier": [{"system": "urn:other", "value": "77"}]},
    ],
    ids=["another test", "another time", "another value", "another system"],
)
async def test_results_of_one_accession_number_are_several_results(search, page_of, observation, difference):
    identifier = [{"system": "urn:lab", "value": "77"}]
    first, second = (
        observation("a", identifier=identifier),
        observation("b", **{"identifier": identifier, **difference}),
    )
    found = await search(page_of(first, second))
    assert (ids(found), found.dropped) == (["a", "b"], {})


async def test_identifiers_without_a_system_or_a_value_make_nothing_the_same(search, page_of, observation):
    for identifier in ([{"value": "77"}], [{"system": "urn:lab"}], [{}]):
        pair = [observation(name, identifier=identifier) for name in "ab"]
        assert ids(await search(page_of(*pair))) == ["a", "b"]


async def test_an_order_under_two_ids_is_one_order(client_of, transport_of, page_of, service_request):
    identifier = [{"system": "urn:placer", "value": "5"}]
    page = page_of(*(service_request(name, identifier=identifier) for name in "ab"))
    found = await client_of(transport_of(page)).search(Search(resource_type="ServiceRequest", parameters=()))
    assert (ids(found), found.dropped) == (["b"], {"ServiceRequest.same_identifier": 1})


async def test_of_two_versions_that_do_not_say_which_is_newer_the_later_one_counts(search, page_of, observation):
    found = await search(page_of(observation("a", status="preliminary"), observation("a")))
    assert [resource.status for resource in found.resources] == ["final"]


async def test_two_ids_are_two_results(search, page_of, observation):
    assert ids(await search(page_of(observation("a"), observation("b")))) == ["a", "b"]


# -- what else may come in a page


def outcome(severity):
    return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": "processing"}]}


@pytest.mark.parametrize("severity", ["warning", "information"])
async def test_a_warning_among_the_entries_is_no_match(search, page_of, observation, severity):
    assert ids(await search(page_of(outcome(severity), observation("a"), total=1))) == ["a"]
    assert ids(await search(page_of(outcome(severity), total=0))) == []


@pytest.mark.parametrize("severity", ["error", "fatal"])
async def test_an_error_among_the_entries_is_never_taken_for_nothing_there(search, page_of, severity):
    with pytest.raises(EmrBadResponse, match="error"):
        await search(page_of(outcome(severity), total=0))


async def test_an_operation_outcome_instead_of_the_page_is_never_taken_for_nothing_there(search):
    with pytest.raises(EmrBadResponse, match="error"):
        await search(outcome("error"))
    with pytest.raises(EmrBadResponse, match="OperationOutcome"):
        await search(outcome("warning"))


async def test_a_resource_of_another_type_is_refused(search, page_of, patient):
    with pytest.raises(EmrBadResponse, match="only Observation"):
        await search(page_of(patient()))


@pytest.mark.parametrize("resource_id", [None, "", "a/b", "a b", "a" * 65, "é", "..%2f", "a\n"])
async def test_a_resource_without_a_fhir_id_is_refused(search, page_of, observation, resource_id):
    with pytest.raises(EmrBadResponse, match="FHIR id"):
        await search(page_of(observation(resource_id)))


async def test_a_page_of_another_kind_is_refused(search, page_of):
    with pytest.raises(EmrBadResponse, match="searchset"):
        await search(page_of(type="history"))


@pytest.mark.parametrize("body", [b"", b"<html></html>", b'{"resourceType":"Bun'])
async def test_what_is_no_page_is_a_bad_response(search, body):
    with pytest.raises(EmrBadResponse):
        await search(body)


# -- what the server withholds


def issue(code="processing", severity="warning", epic=None, text=None):
    details = {"text": text, "coding": [{"system": "urn:oid:1.2.840.114350.1.13.0.1.7.2.657369", "code": epic}]}
    return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": code, "details": details}]}


WITHHELD = {
    "epic 4130": issue(epic="4130"),
    "epic 4131 as an error": issue(epic="4131", severity="fatal"),
    "suppressed": issue("suppressed", "information"),
    "security in words": issue("security", text="Break-the-Glass required for this patient."),
    "forbidden in words": issue("forbidden", "error", text="BTG"),
}


@pytest.mark.parametrize("said", WITHHELD.values(), ids=WITHHELD.keys())
async def test_a_record_that_is_withheld_is_never_taken_for_a_short_one(search, page_of, observation, said):
    body = json.dumps(said).encode()
    for answer in (
        page_of(said, total=0),
        page_of(observation("a"), said),
        said,
        Response(status=403, content_type="application/fhir+json", body=body),
        Response(status=404, content_type="application/fhir+json", body=body),
    ):
        with pytest.raises(Restricted):
            await search(answer)


@pytest.mark.parametrize(
    "said",
    [issue("security", "error"), issue("forbidden", "error", text="scope"), issue(severity="error", epic="4112")],
)
async def test_a_refusal_that_is_about_us_is_no_withheld_record(search, page_of, said):
    with pytest.raises(EmrRefused):
        await search(Response(status=403, content_type="application/fhir+json", body=json.dumps(said).encode()))
    with pytest.raises(EmrBadResponse):
        await search(page_of(said))


async def test_a_code_of_another_system_than_epics_says_nothing_about_the_record(search, page_of, observation):
    said = issue(epic="4130")
    said["issue"][0]["details"]["coding"][0]["system"] = "urn:other"
    assert ids(await search(page_of(said, observation("a")))) == ["a"]


async def test_the_words_alone_withhold_nothing(search, page_of, observation):
    said = issue("informational", "information", text="Break-the-glass was used for this patient.")
    assert ids(await search(page_of(said, observation("a")))) == ["a"]


@pytest.mark.parametrize(
    "said", [issue("incomplete"), issue("too-costly"), issue("too-long"), issue(epic="4127"), issue(epic="59133")]
)
async def test_a_warning_that_these_are_not_all_is_believed(search, page_of, observation, said):
    with pytest.raises(EmrIncomplete):
        await search(page_of(said, observation("a")))


async def test_epics_note_that_there_are_no_results_is_no_error(search, page_of):
    assert ids(await search(page_of(issue(epic="4101"), total=0))) == []


# -- what is included


async def test_what_was_asked_to_be_included_comes_beside_the_matches(
    client_of, transport_of, page_of, medication_request
):
    drug = {"resourceType": "Medication", "id": "m", "code": {"coding": [{"system": "urn:rx", "code": "1"}]}}
    page = page_of(medication_request("a"), total=1)
    page["entry"] += [{"resource": drug, "search": {"mode": "include"}}] * 2
    client = client_of(transport_of(page))
    asked = Search(resource_type="MedicationRequest", parameters=(("_include", "MedicationRequest:medication"),))
    found = await client.search(asked)
    assert (ids(found), [it.id for it in found.included]) == (["a"], ["m"])
    unasked = await client.search(Search(resource_type="MedicationRequest", parameters=()))
    assert (ids(unasked), unasked.included) == (["a"], ())
    del page["entry"][1]["search"]
    with pytest.raises(EmrBadResponse, match="only MedicationRequest"):
        await client.search(asked)


async def test_a_full_url_that_contradicts_the_id_changes_nothing(search, page_of, observation, fhir_base):
    page = page_of(observation("a"), observation("b"))
    for entry in page["entry"]:
        entry["fullUrl"] = f"{fhir_base}/Observation/other"
    assert ids(await search(page)) == ["a", "b"]


# -- how old an answer is


@pytest.mark.parametrize(
    ("headers", "age_s"),
    [({"age": "7200"}, 7200.0), ({}, 0.0), ({"age": "-5"}, 0.0), ({"age": "soon"}, 0.0), ({"age": "9" * 400}, 0.0)],
)
async def test_a_cached_answer_says_how_old_it_is(search, page_of, headers, age_s):
    body = json.dumps(page_of()).encode()
    found = await search(Response(status=200, content_type="application/fhir+json", body=body, headers=headers))
    assert found.age_s == age_s


@pytest.mark.parametrize(("before_now_s", "age_s"), [(90, 90.0), (-90, 0.0)])
async def test_a_bundle_is_as_old_as_its_own_date(search, page_of, clock, before_now_s, age_s):
    put_together = (clock.now() - timedelta(seconds=before_now_s)).isoformat()
    assert (await search(page_of(meta={"lastUpdated": put_together}))).age_s == age_s


async def test_a_bundle_with_an_odd_date_has_no_age(search, page_of):
    assert (await search(page_of(meta={"lastUpdated": "2015"}))).age_s == 0.0


async def test_the_oldest_page_says_how_old_the_search_is(search, page_of, fhir_base):
    def page(age, **elements):
        body = json.dumps(page_of(**elements)).encode()
        return Response(status=200, content_type="application/json", body=body, headers={"age": age})

    assert (await search(page("30", following=f"{fhir_base}/Observation?page=2"), page("10"))).age_s == 30.0


# -- the record


async def test_the_record_says_what_was_asked_when_and_how_whole_it_was(search, page_of, observation, clock, fhir_base):
    now = clock.now()
    record = (
        await search(
            page_of(observation("a"), following=f"{fhir_base}/Observation?p=2", total=2), page_of(observation())
        )
    ).record
    assert (record.name, record.resource, record.via, record.started_at) == ("labs", "Observation", "fhir", now)
    assert (record.resources, record.pages, record.requests, record.total, record.error) == (2, 2, 2, 2, None)


async def test_a_search_that_failed_leaves_a_record_too(search, page_of, observation, status_of, fhir_base):
    with pytest.raises(EmrUnreachable) as caught:
        await search(page_of(observation(), following=f"{fhir_base}/Observation?page=2"), status_of(503))
    [record] = caught.value.fetches
    assert (record.name, record.error, record.resources, record.requests) == ("labs", "emr-unreachable", 0, 2)


# -- a page that cannot be read


CUT_OFF = {
    "nothing": b"",
    "a web page": b"<html><body>Sign in</body></html>",
    "half a page": b'{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Obs',
    "another resource": b'{"resourceType":"Practitioner"}',
    "a history": b'{"resourceType":"Bundle","type":"history"}',
    "no resource in it": b'{"resourceType":"Bundle","type":"searchset","entry":[{"fullUrl":"urn:x"}]}',
}


@pytest.mark.parametrize("body", CUT_OFF.values(), ids=CUT_OFF.keys())
async def test_a_page_that_cannot_be_read_is_asked_for_once_more(transport_of, client_of, page_of, observation, body):
    transport = transport_of(body, page_of(observation("a")))
    found = await client_of(transport).search(SEARCH)
    assert (ids(found), found.record.requests) == (["a"], 2)
    assert transport.requests[0] == transport.requests[1]
    transport = transport_of(body)
    with pytest.raises(EmrBadResponse):
        await client_of(transport).search(SEARCH)
    assert len(transport.requests) == 2


async def test_every_request_may_be_repeated_and_carries_the_budget(transport_of, client_of, page_of, fhir_base):
    transport = transport_of(page_of(following=f"{fhir_base}/Observation?page=2"), page_of())
    budget = Budget(deadline=5.0, correlation_id="c")
    await client_of(transport).search(SEARCH, budget=budget)
    assert [(request.repeatable, request.budget) for request in transport.requests] == [(True, budget)] * 2


# -- STU3


async def test_a_stu3_server_is_asked_in_its_own_words(transport_of, client_of, page_of, service_request, fhir_base):
    transport = transport_of(page_of(service_request("o1", resourceType="ProcedureRequest", encounter=None)))
    client = client_of(transport, fhir_version="STU3")
    found = await client.search(Search(resource_type="ServiceRequest", parameters=(("authored", "ge2015"),)))
    assert [type(resource).__name__ for resource in found.resources] == ["ServiceRequest"]
    assert transport.requests[0].url == f"{fhir_base}/ProcedureRequest/_search"
    transport = transport_of(page_of())
    conditions = Search(resource_type="Condition", parameters=(("patient", "p1"), ("recorded-date", "ge2015")))
    await client_of(transport, fhir_version="STU3").search(conditions)
    assert transport.requests[0].form[:2] == (("patient", "p1"), ("asserted-date", "ge2015"))


async def test_an_answer_in_xml_is_an_answer(search):
    body = (
        b'<Bundle xmlns="http://hl7.org/fhir"><type value="searchset"/><total value="1"/><entry><resource><Observation>'
        b'<id value="a"/></Observation></resource></entry></Bundle>'
    )
    assert ids(await search(Response(status=200, content_type="application/fhir+xml", body=body))) == ["a"]


# -- nothing by this id


@pytest.mark.parametrize(("status", "code"), [(404, "not-found"), (410, "deleted"), (410, "not-found")])
async def test_a_404_that_says_so_of_an_id_is_nothing_found(client_of, transport_of, status, code):
    body = json.dumps(issue(code, "fatal")).encode()
    answer = Response(status=status, content_type="application/fhir+json", body=body)
    by_id = Search(resource_type="Patient", parameters=(("_id", "p1"),))
    assert (await client_of(transport_of(answer)).search(by_id)).resources == ()
    for kind, parameters in (("Observation", SEARCH.parameters), ("Medication", (("_id", "d"),)), ("Patient", ())):
        with pytest.raises(EmrBadResponse):
            await client_of(transport_of(answer)).search(Search(resource_type=kind, parameters=parameters))


@pytest.mark.parametrize("body", [b"", b"<html>", json.dumps(issue("not-supported", "fatal")).encode()])
async def test_any_other_404_is_a_bad_response_of_an_id_too(client_of, transport_of, body):
    answer = Response(status=404, content_type="application/fhir+json", body=body)
    with pytest.raises(EmrBadResponse):
        await client_of(transport_of(answer)).search(Search(resource_type="Patient", parameters=(("_id", "p1"),)))


# -- statuses


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, EmrBadResponse),
        (302, EmrBadResponse),
        (304, EmrBadResponse),
        (400, EmrBadResponse),
        (401, EmrRefused),
        (403, EmrRefused),
        (404, EmrBadResponse),
        (408, EmrUnreachable),
        (410, EmrBadResponse),
        (422, EmrBadResponse),
        (425, EmrUnreachable),
        (429, EmrThrottled),
        (500, EmrUnreachable),
        (502, EmrUnreachable),
        (503, EmrUnreachable),
        (504, EmrUnreachable),
    ],
)
async def test_a_status_other_than_success_is_classed_by_what_can_be_done(search, status_of, status, error):
    with pytest.raises(error, match=str(status)):
        await search(status_of(status, b'{"resourceType":"Bundle","type":"searchset"}'))


async def test_an_error_on_a_later_page_fails_the_whole_search(search, page_of, observation, status_of, fhir_base):
    with pytest.raises(EmrUnreachable):
        await search(page_of(observation(), following=f"{fhir_base}/Observation?page=2"), status_of(503))


async def test_a_failure_of_the_network_comes_out_as_it_is(search):
    with pytest.raises(EmrTimeout):
        await search(EmrTimeout("slow"))


# -- credentials


class Tokens:
    """Gives a new token after each refusal."""

    def __init__(self):
        self.number = 1
        self.refusals = []

    origins = None

    async def headers(self, *, budget=None):
        return {"Authorization": f"Bearer t{self.number}"}

    def refused(self, headers):
        self.refusals.append(headers["Authorization"])
        self.number += 1
        return True


async def test_every_page_is_asked_for_with_the_credentials(transport_of, client_of, page_of, observation, fhir_base):
    transport = transport_of(page_of(following=f"{fhir_base}/Observation?page=2"), page_of(observation()))
    await client_of(transport, credentials=Tokens()).search(SEARCH)
    assert [request.headers["Authorization"] for request in transport.requests] == ["Bearer t1"] * 2


async def test_after_a_401_the_search_is_asked_once_more_with_a_new_token(
    transport_of, client_of, page_of, observation, status_of
):
    transport, tokens = transport_of(status_of(401), page_of(observation())), Tokens()
    assert ids(await client_of(transport, credentials=tokens).search(SEARCH)) == ["lab1"]
    assert [request.headers["Authorization"] for request in transport.requests] == ["Bearer t1", "Bearer t2"]
    assert transport.requests[0].form == transport.requests[1].form
    assert tokens.refusals == ["Bearer t1"]


async def test_a_second_401_is_a_refusal(transport_of, client_of, status_of):
    transport = transport_of(status_of(401))
    with pytest.raises(EmrRefused):
        await client_of(transport, credentials=Tokens()).search(SEARCH)
    assert len(transport.requests) == 2


async def test_a_403_is_not_asked_again(transport_of, client_of, status_of):
    transport = transport_of(status_of(403))
    with pytest.raises(EmrRefused):
        await client_of(transport, credentials=Tokens()).search(SEARCH)
    assert len(transport.requests) == 1


async def test_credentials_that_a_caller_lends_override_the_clients_own(transport_of, client_of, page_of):
    class Lent(Tokens):
        async def headers(self, *, budget=None):
            return {"Authorization": "Bearer lent"}

    transport = transport_of(page_of())
    own = Tokens()
    client = client_of(transport, credentials=own)
    await client.search(SEARCH, credentials=Lent())
    await client.search(SEARCH)
    assert [request.headers["Authorization"] for request in transport.requests] == ["Bearer lent", "Bearer t1"]
