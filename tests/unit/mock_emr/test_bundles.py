from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from fhirclient.models.bundle import Bundle

from mock_emr.bundles import searchset
from mock_emr.outcomes import no_results, unknown_parameter
from mock_emr.paging import Search, Searches
from mock_emr.query import found, query_of
from mock_emr.store import Form, Store

Make = Callable[..., dict[str, Any]]
Stores = Callable[..., Store]


def forms_of(store: Store) -> tuple[Form, ...]:
    query = query_of("Observation", [("patient", "p1")], strict=True)
    return found(query, store=store, now=datetime(2015, 6, 1, tzinfo=UTC))


def page(forms: tuple[Form, ...], *issues: Any, next_url: str | None = None) -> dict[str, Any]:
    body = searchset(
        forms,
        fhir_base="http://emr/R4",
        total=7,
        self_url="http://emr/R4/Observation?patient=p1",
        next_url=next_url,
        issues=issues,
    )
    bundle: dict[str, Any] = msgspec.json.decode(body)
    Bundle(bundle)  # strict R4: raises on anything that is no Bundle
    return bundle


def test_a_page_holds_each_resource_with_its_url_as_a_match(store_of: Stores, observation: Make) -> None:
    bundle = page(forms_of(store_of(observation("l1"), observation("l2"))), next_url="http://emr/next")
    assert bundle["type"] == "searchset"
    assert bundle["total"] == 7
    assert bundle["link"] == [
        {"relation": "self", "url": "http://emr/R4/Observation?patient=p1"},
        {"relation": "next", "url": "http://emr/next"},
    ]
    assert bundle["entry"] == [
        {
            "fullUrl": f"http://emr/R4/Observation/{name}",
            "resource": observation(name),
            "search": {"mode": "match"},
        }
        for name in ("l1", "l2")
    ]


def test_outcomes_come_last_in_one_entry_of_their_own(store_of: Stores, observation: Make) -> None:
    bundle = page(forms_of(store_of(observation("l1"))), unknown_parameter("favourite", severity="warning"))
    assert [entry["search"]["mode"] for entry in bundle["entry"]] == ["match", "outcome"]
    assert bundle["entry"][1]["resource"]["issue"][0]["expression"] == ["favourite"]


def test_an_empty_page_holds_the_outcome_alone_or_no_entries_at_all() -> None:
    (entry,) = page((), no_results())["entry"]
    assert entry["resource"]["issue"][0]["details"]["coding"][0]["code"] == "4101"
    assert "entry" not in page(())


def test_pages_follow_one_another_and_end(store_of: Stores, observation: Make) -> None:
    forms = forms_of(store_of(*(observation(f"l{n}") for n in range(5))))
    search = Search(client_id=None, resource_type="Observation", forms=forms, page_size=2)
    assert [len(search.page(n)) for n in (1, 2, 3, 4)] == [2, 2, 1, 0]
    assert [search.has_after(n) for n in (1, 2, 3)] == [True, True, False]
    assert not Search(client_id=None, resource_type="Observation", forms=forms[:4], page_size=2).has_after(2)


def test_a_kept_search_is_its_clients_and_its_types_alone() -> None:
    searches = Searches(token_bytes=bytes)
    search = Search(client_id="a", resource_type="Observation", forms=(), page_size=1)
    session = searches.keep(search)
    assert searches.recall(session, client_id="a", resource_type="Observation") is search
    assert searches.recall(session, client_id="b", resource_type="Observation") is None
    assert searches.recall(session, client_id="a", resource_type="Condition") is None
    assert searches.recall("other", client_id="a", resource_type="Observation") is None


def test_the_search_that_was_not_asked_about_for_longest_goes_first() -> None:
    numbers = iter(range(1, 10))
    searches = Searches(token_bytes=lambda size: next(numbers).to_bytes(size, "big"), limit=2)
    search = Search(client_id=None, resource_type="Observation", forms=(), page_size=1)
    first, second = searches.keep(search), searches.keep(search)
    searches.recall(first, client_id=None, resource_type="Observation")
    searches.keep(search)
    assert searches.recall(first, client_id=None, resource_type="Observation") is search
    assert searches.recall(second, client_id=None, resource_type="Observation") is None
