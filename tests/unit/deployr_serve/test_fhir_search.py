"""Searches: every page, complete, from the EMR's own origin only."""

from __future__ import annotations

import pytest

from deployr_serve.adapters import fhir_search
from deployr_serve.adapters.fhir_search import Search
from deployr_serve.core.errors import EmrBadResponse, EmrRefused, EmrTimeout, EmrUnreachable

SEARCH = Search(resource_type="Observation", parameters=(("patient", "p1"), ("code", "http://loinc.org|4544-3")))


@pytest.fixture
def search(transport_of, client_of):
    """Give a function that searches a server that answers so, and gives what was found."""

    async def run(*answers, **options):
        return await client_of(transport_of(*answers), **options).search(SEARCH)

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
    with pytest.raises(EmrBadResponse, match="loop"):
        await search(page, page)


async def test_pages_that_lead_to_each_other_are_a_loop(search, page_of, observation, fhir_base):
    there, back = f"{fhir_base}/Observation?page=2", f"{fhir_base}/Observation?page=3"
    with pytest.raises(EmrBadResponse, match="loop"):
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
    with pytest.raises(EmrBadResponse, match="at most 50 pages"):
        await client_of(transport).search(SEARCH)
    assert len(transport.requests) == 50
    pages = [page_of(observation(f"l{i}"), following=f"{fhir_base}/Observation?page={i}") for i in range(49)]
    found = await client_of(transport_of(*pages, page_of(observation("last")))).search(SEARCH)
    assert (found.record.pages, len(found.resources)) == (50, 50)


async def test_more_resources_than_anybody_has_are_refused(search, monkeypatch, endless):
    monkeypatch.setattr(fhir_search, "MAX_RESOURCES", 3)
    with pytest.raises(EmrBadResponse, match="3 resources"):
        await search(endless)


# -- complete


@pytest.mark.parametrize("total", [3, 1000])
async def test_fewer_matches_than_the_server_counted_are_never_taken_for_all(search, page_of, observation, total):
    with pytest.raises(EmrBadResponse, match="got fewer"):
        await search(page_of(observation("a"), observation("b"), total=total))


async def test_the_count_holds_over_all_pages(search, page_of, observation, fhir_base):
    first = page_of(observation("a"), following=f"{fhir_base}/Observation?page=2", total=3)
    with pytest.raises(EmrBadResponse, match="got fewer"):
        await search(first, page_of(observation("b")))


async def test_a_server_that_does_not_count_is_believed(search, page_of, observation):
    assert ids(await search(page_of(observation("a")))) == ["a"]


async def test_a_result_on_two_pages_is_found_once_in_its_newest_version(search, page_of, observation, fhir_base):
    old = observation("a", meta={"lastUpdated": "2015-01-06T10:00:00Z"}, status="preliminary")
    new = observation("a", meta={"lastUpdated": "2015-01-06T11:00:00Z"})
    following = f"{fhir_base}/Observation?page=2"
    for first, second in ((old, new), (new, old)):
        [found] = (await search(page_of(first, following=following), page_of(second))).resources
        assert found.status == "final"


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
    with pytest.raises(EmrBadResponse, match="OperationOutcome"):
        await search(outcome("error"))


async def test_a_resource_of_another_type_is_refused(search, page_of, patient):
    with pytest.raises(EmrBadResponse, match="only Observation"):
        await search(page_of(patient()))


async def test_a_resource_without_an_id_is_refused(search, page_of, observation):
    with pytest.raises(EmrBadResponse, match="an id"):
        await search(page_of(observation(None)))


async def test_a_page_of_another_kind_is_refused(search, page_of):
    with pytest.raises(EmrBadResponse, match="searchset"):
        await search(page_of(type="history"))


@pytest.mark.parametrize("body", [b"", b"<html></html>", b'{"resourceType":"Bun'])
async def test_what_is_no_page_is_a_bad_response(search, body):
    with pytest.raises(EmrBadResponse):
        await search(body)


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
        (429, EmrUnreachable),
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

    async def headers(self):
        return {"Authorization": f"Bearer t{self.number}"}

    def refused(self, headers):
        self.refusals.append(headers["Authorization"])
        self.number += 1


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
