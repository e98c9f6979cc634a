"""What Azure Cosmos DB does beside what all stores promise: its layout, its size limit, and how it fails.

Faults come from a small server between the real SDK and the stand-in.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import msgspec
import pytest
from azure.core.exceptions import ServiceRequestError
from azure.identity import CredentialUnavailableError

from deployr_cli.failures import CommandFailed
from deployr_cli.stores import with_store
from deployr_cli.up_azure import COSMOS_KEY
from deployr_core.packet import Abstained, DeliveryState, Event, EventKind, Label, Observed
from deployr_core.packet_ids import derive_event_id
from deployr_serve.adapters import cosmos_layout
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.cosmos_documents import item_id
from deployr_serve.adapters.cosmos_errors import Verdict, verdict
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.switches import Change, list_switches, turn
from deployr_serve.settings import read_settings
from tests.emulators.scripted_cosmos import Fault, ScriptedCosmos

EVER = None


@pytest.fixture
async def store(cosmos_of):
    made = cosmos_of()
    await made.init()
    yield made
    await made.aclose()


@pytest.fixture
async def scripted(cosmos_address, cosmos_of):
    """Give a store behind a scripted server, laid out and opened, and that server."""
    script = ScriptedCosmos(cosmos_address)
    async with script.listening() as address:
        made = cosmos_of(address, within_s=1.5, clock=SystemClock())
        await made.init()
        await made.check()
        script.calls.clear()
        yield made, script
        await made.aclose()


@pytest.fixture
async def client(cosmos_address):
    from azure.cosmos.aio import CosmosClient

    async with CosmosClient(cosmos_address, COSMOS_KEY) as opened:
        yield opened


def label_of(now, packet_id="p01"):
    outcome = Observed(value=1.0, at=now, known_at=now, source_id="lab1")
    return Label(label_id=f"{packet_id}.lab", packet_id=packet_id, rule="lab", outcome=outcome, attached_at=now)


def documents_of(client, store, packet_id="p01"):
    container = client.get_database_client(store._link.database).get_container_client(cosmos_layout.PACKETS)
    return container.query_items("SELECT * FROM c", partition_key=packet_id)


async def blobs_of(store, packet_id="p01"):
    return [each async for each in store._blobs._container().list_blob_names(name_starts_with=packet_id)]


# -- layout


async def test_what_was_laid_out_is_as_declared_and_laying_it_out_again_does_nothing(cosmos_of):
    store = cosmos_of()
    # The blob container is there or not: all tests share one storage account.
    assert (await store.differences())[:2] == ("packets: is not there", "records: is not there")
    assert (await store.init())[:2] == ("packets: is as declared now", "records: is as declared now")
    assert await store.differences() == ()
    assert await store.init() == ()
    await store.aclose()


def test_command_lines_open_it_each_on_a_loop_of_its_own(cosmos_address, azurite, new_database, now):
    settings = read_settings(
        {
            "DEPLOYR_BUNDLES": "bundles",
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4",
            "DEPLOYR_STORE": f"cosmos:{cosmos_address}",
            "DEPLOYR_STORE_DATABASE": new_database(),
            "DEPLOYR_STORE_KEY": COSMOS_KEY,
            "DEPLOYR_STORE_BLOBS": azurite,
        }
    )
    with pytest.raises(CommandFailed, match="deployr store init"):
        with_store(settings, lambda store: store.check())
    with_store(settings, lambda store: store.init())
    off = Change(is_off=True, by="tester", why="a drill", at=now)
    with_store(settings, lambda store: turn(store, "all", off))
    switches = with_store(settings, lambda store: list_switches(store, now=now))
    assert [(name, switch.is_off) for name, switch in switches.items()] == [("all", True)]


async def test_another_index_or_lifetime_is_said_and_put_right(store, client):
    from azure.cosmos import PartitionKey

    database = client.get_database_client(store._link.database)
    await database.replace_container(
        "records", PartitionKey(path="/id"), indexing_policy={"indexingMode": "consistent"}
    )
    said = await store.differences()
    assert {line.partition(":")[0] for line in said} == {"records"}
    assert len(said) == 2
    assert await store.init() == ("records: is as declared now",)
    assert await store.differences() == ()


async def test_another_partition_key_is_said_and_left_alone(cosmos_of, client):
    from azure.cosmos import PartitionKey

    store = cosmos_of(database="of-somebody-else")
    database = await client.create_database_if_not_exists("of-somebody-else")
    await database.create_container_if_not_exists("packets", PartitionKey(path="/id"))
    await store.init()
    assert any("expected the partition key /packet_id" in line for line in await store.differences())
    await store.aclose()


async def test_a_database_that_was_not_laid_out_is_unavailable_and_not_empty(cosmos_of):
    store = cosmos_of()
    with pytest.raises(StoreUnavailable) as refused:
        await store.read("p01")
    assert refused.value.why == "not-initialised"
    await store.init()
    assert await store.read("p01") is None
    await store.aclose()


@pytest.mark.parametrize("operation", ["account", "container", "query", "upsert"])
async def test_a_place_that_is_not_there_is_unavailable_and_not_empty(scripted, now, operation):
    store, script = scripted
    await store.aclose()
    store._link._is_laid_out = False
    script.fail(Fault(on=(operation,), status=404, times=EVER))
    asked = [store.packets(model_id="m", after=None, limit=1), store.records("switch", now=now), store.check()]
    asked += [store.read("p01"), store.read_record("switch", "all", now=now)]
    came = await asyncio.gather(*asked, return_exceptions=True)
    refused = [isinstance(each, StoreUnavailable) for each in came]
    assert not any(isinstance(each, Exception) for each, was in zip(came, refused, strict=True) if not was)
    due = {"query": [True, True, False, False, False], "upsert": [False, False, True, False, False]}
    assert refused == due.get(operation, [True] * 5)


# -- documents


async def test_all_about_a_packet_lies_in_its_partition_and_ids_say_nothing_of_the_patient(
    store, client, packet_of, delivery_of, now
):
    created = await store.create(packet_of(patient_id="CANARY-1", order_id="CANARY-2"))
    shown = Event(event_id=derive_event_id("p01", EventKind.SHOWN, now), packet_id="p01", kind=EventKind.SHOWN, at=now)
    await store.replace(created.packet, etag=created.etag, deliveries=(delivery_of(),), events=(shown,))
    await store.attach_label(label_of(now))
    found = {each["id"]: each["type"] async for each in documents_of(client, store)}
    assert sorted(found.values()) == ["delivery", "event", "label", "packet"]
    assert not any("CANARY" in each for each in found)


def test_an_id_that_the_service_does_not_take_is_replaced_by_its_digest():
    assert item_id("label", "p01.lab-component") == "label:p01.lab-component"
    odd = item_id("label", "p01.a/b?c")
    assert odd.startswith("label:")
    assert not set("/?#\\") & set(odd)
    assert odd != item_id("label", "p01.a/b?d")


async def test_a_packet_of_more_than_half_a_megabyte_is_kept_in_a_blob_and_comes_back_equal(
    store, client, packet_of, received, now
):
    created = await store.create(packet_of(outcome=received))
    large = packet_of(outcome=Abstained(reason="sparse", coverage={f"counted.{n:07d}": n for n in range(80_000)}))
    below = packet_of(
        "p02", outcome=Abstained(reason="sparse", coverage={f"counted.{n:07d}": n for n in range(20_000)})
    )
    assert 400_000 < len(msgspec.json.encode(below)) <= cosmos_layout.LARGEST_BODY
    assert await store.create(below) == await store.read("p02")
    assert await blobs_of(store, "p02") == []
    assert len(msgspec.json.encode(large)) > cosmos_layout.LARGEST_BODY
    replaced = await store.replace(large, etag=created.etag)
    assert await store.read("p01") == replaced
    assert (await store.packets(model_id="hematocrit", after=None, limit=1)) == (large,)
    [document] = [each async for each in documents_of(client, store)]
    assert "body" not in document
    assert len(msgspec.json.encode(document)) < 1_000
    assert await store.erase("p01", leaving=None)
    assert await blobs_of(store) == []


async def test_a_blob_that_was_changed_is_no_packet(store, packet_of):
    large = packet_of(outcome=Abstained(reason="sparse", coverage={f"counted.{n:07d}": n for n in range(80_000)}))
    await store.create(large)
    [name] = await blobs_of(store)
    await store._blobs._container().upload_blob(name, b"{}", overwrite=True)
    with pytest.raises(StoreUnavailable):
        await store.read("p01")
    assert await store.erase("p01", leaving=None)


async def test_what_is_too_large_for_a_document_and_no_packet_is_refused(store, packet_of, now):
    with pytest.raises(StoreUnavailable, match="at most"):
        await store.create_record("batch", "x", b"x" * 300_000, now=now)
    event = Event(event_id="p01.e", packet_id="p01", kind=EventKind.OVERRIDDEN, at=now, comment="x" * 300_000)
    with pytest.raises(StoreUnavailable, match="at most"):
        await store.append_event(event)


async def test_what_is_too_large_for_one_batch_is_refused_before_it_is_sent(store, packet_of, received, now):
    created = await store.create(packet_of(outcome=received))
    events = tuple(
        Event(event_id=f"p01.{n}", packet_id="p01", kind=EventKind.OVERRIDDEN, at=now, comment="x" * 240_000)
        for n in range(7)
    )
    with pytest.raises(StoreUnavailable, match="at once"):
        await store.replace(packet_of(), etag=created.etag, events=events)
    assert await store.read("p01") == created


async def test_two_labels_that_come_at_once_are_both_attached(store, packet_of, now):
    await store.create(packet_of())
    rules = [f"rule{n}" for n in range(5)]
    labels = [msgspec.structs.replace(label_of(now), label_id=f"p01.{rule}", rule=rule) for rule in rules]
    assert await asyncio.gather(*(store.attach_label(label) for label in labels)) == [True] * 5
    for rule in rules:
        assert await store.unlabelled(model_id="hematocrit", rule=rule, after=None, limit=9) == ()


async def test_a_packet_with_more_than_a_batch_of_events_is_erased_whole(store, packet_of, now):
    await store.create(packet_of())
    for number in range(130):
        event = Event(event_id=f"p01.{number}", packet_id="p01", kind=EventKind.OVERRIDDEN, at=now)
        assert await store.append_event(event)
    assert await store.erase("p01", leaving=None)
    assert await store.read("p01") is None
    assert await store.events("p01") == ()


async def test_a_record_lives_an_hour_longer_in_the_service_than_for_us(store, client, now):
    await store.create_record("lease", "x", b"a", now=now, expires_at=now + timedelta(seconds=10))
    await store.create_record("lease", "y", b"a", now=now)
    container = client.get_database_client(store._link.database).get_container_client(cosmos_layout.RECORDS)
    there = {each["record_id"]: each async for each in container.read_all_items()}
    assert (there["x"]["ttl"], "ttl" in there["y"]) == (3610, False)


async def test_no_value_is_ever_part_of_a_query(scripted, now):
    store, script = scripted
    odd = "x' OR 1=1 --"
    asked = {"after": odd, "limit": 5}
    assert await store.packets(model_id=odd, since=now, until=now, **asked) == ()
    assert await store.packets_of(odd, **asked) == ()
    assert await store.unlabelled(model_id=odd, rule=odd, **asked) == ()
    assert await store.labels(model_id=odd, rule=odd, **asked) == ()
    assert await store.labelled(model_id=odd, rule=odd, since=now, until=now, **asked) == ()
    assert await store.shown(since=now, **asked) == ()
    assert await store.deliveries(state=DeliveryState.DEAD, **asked) == ()
    assert await store.pending_deliveries(due_before=now, limit=5) == ()
    assert await store.records(odd, now=now) == {}
    assert len(script.queries) == 9
    assert not any("'" in text or "OR" in text.split() for text in script.queries[:2] + script.queries[3:])
    assert not any(odd in text for text in script.queries)


async def test_the_sdk_says_nothing_below_a_warning(scripted, packet_of, caplog):
    store, _ = scripted
    caplog.set_level(logging.DEBUG)
    logging.getLogger("azure").setLevel(logging.NOTSET)
    await store.aclose()
    await store.create(packet_of())
    assert [record for record in caplog.records if record.name.startswith("azure")] == []


# -- faults


LOST = {
    "answered 408": Fault(status=408, commits=True),
    "answered 503": Fault(status=503, commits=True),
    "answered 500": Fault(status=500, commits=True),
    "cut off": Fault(wire="drop", commits=True),
    "not answered": Fault(wire="hang", commits=True),
}
REFUSED = {
    "retry with": Fault(status=449, times=3),
    "partition split": Fault(status=410, substatus=1002, times=2),
    "throttled": Fault(status=429, headers={"x-ms-retry-after-ms": "20"}, times=3),
    "unavailable": Fault(status=503, times=2),
    "timed out before": Fault(status=408, times=2),
    "cut off before": Fault(wire="drop", times=2),
}


def written(fault, *operations):
    return msgspec.structs.replace(fault, on=operations)


@pytest.mark.parametrize("fault", [*LOST.values(), *REFUSED.values()], ids=[*LOST, *REFUSED])
async def test_a_packet_whose_answer_was_lost_is_created_once_and_is_ours(scripted, packet_of, received, fault):
    store, script = scripted
    script.fail(written(fault, "create"))
    created = await store.create(packet_of(outcome=received))
    assert created == await store.read("p01")
    assert (await store.replace(packet_of(), etag=created.etag)).packet == packet_of()


@pytest.mark.parametrize("fault", [*LOST.values(), *REFUSED.values()], ids=[*LOST, *REFUSED])
async def test_a_batch_whose_answer_was_lost_is_done_once(scripted, packet_of, delivery_of, received, fault):
    store, script = scripted
    created = await store.create(packet_of(outcome=received))
    script.fail(written(fault, "batch"))
    replaced = await store.replace(packet_of(), etag=created.etag, deliveries=(delivery_of(),))
    assert replaced == await store.read("p01")
    assert await store.read_delivery("p01.score-column") == delivery_of()


@pytest.mark.parametrize("fault", [*LOST.values(), *REFUSED.values()], ids=[*LOST, *REFUSED])
async def test_a_change_whose_answer_was_lost_is_made_once(scripted, packet_of, delivery_of, now, fault):
    store, script = scripted
    created = await store.create(packet_of())
    await store.replace(packet_of(), etag=created.etag, deliveries=(delivery_of(),))
    record = await store.create_record("switch", "all", b"0", now=now)
    script.fail(written(fault, "replace"))
    sent = delivery_of(state=DeliveryState.SENT)
    await store.save_delivery(sent, was=delivery_of())
    assert await store.read_delivery("p01.score-column") == sent
    script.heal()
    script.fail(written(fault, "replace"))
    changed = await store.replace_record("switch", "all", b"1", etag=record.etag)
    assert changed == await store.read_record("switch", "all", now=now)


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_label_whose_answer_was_lost_is_attached_once(scripted, packet_of, now, fault):
    store, script = scripted
    await store.create(packet_of())
    script.fail(written(fault, "batch"))
    assert await store.attach_label(label_of(now)) is True
    assert await store.attach_label(label_of(now)) is False
    assert await store.unlabelled(model_id="hematocrit", rule="lab", after=None, limit=9) == ()


@pytest.mark.parametrize("fault", REFUSED.values(), ids=REFUSED)
async def test_reading_goes_on_where_it_was_refused_for_a_moment(scripted, packet_of, fault):
    store, script = scripted
    created = await store.create(packet_of())
    script.fail(written(fault, "read"))
    assert await store.read("p01") == created


async def test_a_query_of_all_packets_may_take_longer_than_a_request_waits(scripted, packet_of):
    store, script = scripted
    await store.create(packet_of())
    # Of the 1.5 s of a request, no single answer is waited for longer than 0.5 s.
    script.fail(Fault(on=("query",), delay_s=2.0))
    assert await store.packets(model_id="hematocrit", after=None, limit=5) == (packet_of(),)


async def test_a_tag_that_somebody_else_changed_after_our_answer_was_lost_is_changed(scripted, cosmos_of, packet_of):
    store, script = scripted
    created = await store.create(packet_of())
    script.fail(Fault(on=("replace",), status=408, commits=True))
    other = cosmos_of(database=store._link.database)

    class Meanwhile(SystemClock):
        async def sleep(self, seconds):
            held = await other.read("p01")
            assert held.packet.site == "ours"
            await other.replace(packet_of(site="theirs"), etag=held.etag)

    store._link._clock = Meanwhile()
    with pytest.raises(RecordChanged):
        await store.replace(packet_of(site="ours"), etag=created.etag)
    assert (await store.read("p01")).packet.site == "theirs"
    await other.aclose()


ENDED = {
    "throttled": (Fault(status=429, headers={"x-ms-retry-after-ms": "100"}, times=EVER), "throttled"),
    "throttled for longer than we have": (
        Fault(status=429, headers={"x-ms-retry-after-ms": "60000"}, times=EVER),
        "throttled",
    ),
    "key rotated": (Fault(status=401, times=EVER), "refused"),
    "role lost": (Fault(status=403, substatus=5300, times=EVER), "refused"),
    "partition full": (Fault(status=403, substatus=1014, times=EVER), "partition-full"),
    "write region moves": (Fault(status=403, substatus=3, times=EVER), "unavailable"),
    "replica behind": (Fault(status=404, substatus=1002, times=EVER), "unavailable"),
    "partition splits": (Fault(status=410, substatus=1002, times=EVER), "unavailable"),
    "retry with": (Fault(status=449, times=EVER), "unavailable"),
    "unavailable": (Fault(status=503, times=EVER), "unavailable"),
    "not answered": (Fault(wire="hang", times=EVER), "unavailable"),
    "cut off": (Fault(wire="drop", times=EVER), "unavailable"),
}


@pytest.mark.parametrize(("fault", "why"), ENDED.values(), ids=ENDED)
async def test_what_does_not_heal_is_unavailable_in_time_and_heals_afterwards(scripted, packet_of, fault, why):
    store, script = scripted
    script.fail(fault)
    async with asyncio.timeout(20):  # 1.5 s are allowed; the machine may be busy
        with pytest.raises(StoreUnavailable) as refused:
            await store.create(packet_of())
    assert refused.value.why == why
    script.heal()
    assert await store.create(packet_of()) is not None


def test_an_identity_that_gives_no_token_is_a_refusal():
    assert verdict(CredentialUnavailableError(message="no identity here")) is Verdict.REFUSED
    assert verdict(ServiceRequestError("cannot connect")) is Verdict.UNKNOWN


async def test_a_clock_that_is_off_is_told_from_a_key_that_is_wrong(scripted, cosmos_address, packet_of):
    store, script = scripted
    text = "The authorization token is not valid at the current time. Please create another token and retry"
    script.fail(Fault(status=403, message=text, times=EVER))
    with pytest.raises(StoreUnavailable) as refused:
        await store.check()
    assert refused.value.why == "clock-skew"


async def test_after_a_refusal_the_connection_is_made_anew_but_not_every_time(scripted, clock, packet_of):
    store, script = scripted
    store._link._clock = clock
    store._link._opened_at = clock.monotonic()
    script.fail(Fault(status=401, times=EVER))
    for passed_s, opened in ((1, 0), (31, 0), (1, 1), (1, 1)):
        clock.pass_time(passed_s)
        with pytest.raises(StoreUnavailable):
            await store.check()
        assert min(script.calls.count("account"), 1) == opened
    script.heal()
    assert await store.create(packet_of()) is not None
