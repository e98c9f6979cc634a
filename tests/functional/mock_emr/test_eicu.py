"""The mock EMR over real, de-identified intensive care: what it shows must agree with a plain reading of the files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mock_emr.clock import EmrClock
from mock_emr.hosting import listening
from mock_emr.loading import load_folder
from mock_emr.serve import create_app, real_now
from mock_emr.store import Store

pytestmark = pytest.mark.slow

LATER = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(eicu_folder: Path) -> Store:
    return load_folder(eicu_folder)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"{name}.ndjson.gz") as lines:
        return [json.loads(line) for line in lines]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def all_pages(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    resources: list[dict[str, Any]] = []
    following: str | None = url
    while following is not None:
        async with session.get(following) as response:
            bundle = await response.json(content_type="application/fhir+json")
        resources += [e["resource"] for e in bundle.get("entry", ()) if e["search"]["mode"] == "match"]
        following = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
    assert bundle["total"] == len(resources)
    return resources


async def test_every_result_of_a_patient_is_found_once_and_only_what_was_known(store: Store, eicu_folder: Path) -> None:
    observations = read(eicu_folder, "Observation")
    subject, most = Counter(one["subject"]["reference"] for one in observations).most_common(1)[0]
    mine = [one for one in observations if one["subject"]["reference"] == subject]
    known = sorted(one["issued"] for one in mine)[len(mine) // 2]
    clock = EmrClock(real_now=real_now, now=LATER)
    async with (
        listening(lambda url: create_app(store, clock=clock, open_access=True, base_url=url)) as url,
        aiohttp.ClientSession() as session,
    ):
        search = f"{url}/api/FHIR/R4/Observation?patient={subject}&category=laboratory&_count=250"
        everything = await all_pages(session, search)
        clock.put(instant(known))
        half = await all_pages(session, search)
    assert everything == mine
    assert len(everything) == most
    assert half == [one for one in mine if instant(one["issued"]) <= instant(known)]


def test_at_every_order_the_order_is_active_and_its_encounter_can_be_read(store: Store, eicu_folder: Path) -> None:
    issued = {
        reference["reference"]: instant(one["issued"])
        for one in read(eicu_folder, "Observation")
        for reference in one["basedOn"]
    }
    orders = read(eicu_folder, "ServiceRequest")
    early = 0
    for order in orders:
        now = instant(order["authoredOn"])
        shown = store.read("ServiceRequest", order["id"], now=now)
        encounter = store.read("Encounter", order["encounter"]["reference"].partition("/")[2], now=now)
        assert shown is not None
        assert encounter is not None
        pending = issued.get(f"ServiceRequest/{order['id']}", now) > now
        assert json.loads(shown.body)["status"] == ("active" if pending else order["status"])
        early += pending
    assert early > len(orders) / 2


def test_every_encounter_has_a_csn_of_its_own(store: Store, eicu_folder: Path) -> None:
    csns = set()
    for encounter in read(eicu_folder, "Encounter"):
        form = store.read("Encounter", encounter["id"], now=LATER)
        assert form is not None
        (identifier,) = json.loads(form.body)["identifier"]
        assert store.encounter_with_csn(identifier["value"], now=LATER) is form
        csns.add(identifier["value"])
    assert len(csns) == store.count("Encounter") == 144
