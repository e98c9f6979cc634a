"""Forgetting a patient, purging what is old, and bringing old packets up to date."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import msgspec
import pytest

from deployr_core.forgetting import FORGOTTEN, derive_patient_hash, forgotten, is_forgotten
from deployr_core.packet import Abstained, Failed, Received
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.claim import claim
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.retention import Kept, count_about, forget, migrate, purge
from deployr_serve.core.store_counts import count_store


class Vault:
    """Counts what it was told to forget; fails for one packet."""

    def __init__(self, failing=None):
        self.forgotten = []
        self._failing = failing

    async def forget(self, packet_id):
        if packet_id == self._failing:
            raise StoreUnavailable("expected a vault")
        self.forgotten.append(packet_id)
        return 1


@pytest.fixture
async def store(packet_of, delivery_of):
    made = MemoryStore()
    for packet_id, whose in (("p01", "h1"), ("p02", "h1"), ("p03", "h2")):
        created = await made.create(packet_of(packet_id, patient_hash=whose))
        await made.replace(created.packet, etag=created.etag, deliveries=(delivery_of(packet_id),))
    return made


def test_the_hash_of_a_patient_is_the_sites_own_and_tells_nothing_of_the_id():
    assert derive_patient_hash(b"0123456789abcdef", "p1") != derive_patient_hash(b"fedcba9876543210", "p1")
    assert len(derive_patient_hash(b"0123456789abcdef", "p1")) == 32
    with pytest.raises(ValueError, match="16 bytes"):
        derive_patient_hash(b"short", "p1")


def test_what_is_left_of_a_packet_says_nothing_of_whom_or_when_it_was_about(packet_of, now):
    later = now + timedelta(days=700)
    packet = packet_of(patient_hash="HASH", patient_id="CANARY", order_id="CANARY", facts_sha256="CANARY")
    left = forgotten(packet, at=later)
    text = msgspec.json.encode(left).decode()
    for gone in ("CANARY", "HASH", "correlation-1", "2015", "e1"):
        assert gone not in text
    assert (left.packet_id, left.model, is_forgotten(left), is_forgotten(packet)) == ("p01", packet.model, True, False)


async def test_forgetting_takes_all_about_one_patient_and_nothing_of_another(store, clock):
    assert await count_about(store, "h1") == Counter(packets=2, deliveries=2)
    vault = Vault()
    counts = await forget(store, "h1", vault=vault, clock=clock)
    assert counts == Counter(packets=2, deliveries=2, facts=2)
    assert vault.forgotten == ["p01", "p02"]
    assert [(await store.read(f"p0{number}")).packet.outcome.__struct_config__.tag for number in (1, 2, 3)] == [
        "rejected",
        "rejected",
        "scored",
    ]
    assert await forget(store, "h1", vault=vault, clock=clock) == Counter()


async def test_a_packet_whose_facts_could_not_be_erased_can_still_be_found_by_the_next_try(store, clock):
    with pytest.raises(StoreUnavailable):
        await forget(store, "h1", vault=Vault(failing="p02"), clock=clock)
    assert await count_about(store, "h1") == Counter(packets=1, deliveries=1)


async def test_the_same_request_is_not_made_again_after_it_was_forgotten(store, clock, packet_of):
    await forget(store, "h1", vault=None, clock=clock)
    held = await claim(packet_of("p01"), store=store, clock=clock, until=clock.monotonic() + 1, is_off=False)
    assert held.outcome.reason == FORGOTTEN


async def test_a_worker_that_was_at_it_when_it_was_forgotten_cannot_store_its_score(store, clock, packet_of):
    held = await store.read("p01")
    await forget(store, "h1", vault=None, clock=clock)
    with pytest.raises(Exception, match="tag"):
        await store.replace(packet_of("p01"), etag=held.etag)


async def test_purging_goes_by_kind_and_leaves_what_is_being_worked_on(packet_of, received, now):
    store = MemoryStore()
    old, older = now - timedelta(days=10, seconds=1), now - timedelta(days=20, seconds=1)
    for packet_id, started_at, outcome in (
        ("p01", old, None),
        ("p02", older, None),
        ("p03", old, Abstained(reason="sparse")),
        ("p04", now - timedelta(days=10), Failed(reason="emr-timeout", retryable=True)),
        ("p05", older, Received(lease_until=older)),
    ):
        await store.create(packet_of(packet_id, started_at=started_at, outcome=outcome))
    days = {Kept.SCORED: 20, Kept.UNSCORED: 10, Kept.AUDIT: 1}
    expected = Counter({Kept.SCORED: 1, Kept.UNSCORED: 1})
    assert await purge(store, days, vault=None, now=now, dry_run=True) == expected
    assert len(await store.packets(model_id="hematocrit", after=None, limit=9)) == 5
    assert await purge(store, days, vault=None, now=now, dry_run=False) == expected
    kept = await store.packets(model_id="hematocrit", after=None, limit=9)
    assert [packet.packet_id for packet in kept] == ["p01", "p04", "p05"]


async def test_what_has_no_days_is_kept_for_good(store, now):
    later = now + timedelta(days=36_000)
    assert await purge(store, {}, vault=None, now=later, dry_run=False) == Counter()
    assert await purge(store, {Kept.UNSCORED: 1}, vault=None, now=later, dry_run=False) == Counter()


async def test_a_packet_that_a_worker_changes_meanwhile_is_migrated_all_the_same(packet_of):
    class Busy(MemoryStore):
        busy = True

        async def replace(self, packet, *, etag, **more):
            if self.busy:
                self.busy = False
                held = await self.read(packet.packet_id)
                await super().replace(held.packet, etag=held.etag)
            return await super().replace(packet, etag=etag, **more)

    store = Busy()
    await store.create(packet_of(schema_version=1))
    assert await migrate(store, lambda patient_id: f"hash of {patient_id}", dry_run=False) == 1
    packet = (await store.read("p01")).packet
    assert (packet.patient_hash, packet.schema_version) == ("hash of p1", 2)
    assert await migrate(store, lambda _: "", dry_run=False) == 0


async def test_forgotten_packets_are_counted_as_such(store, clock, now):
    await forget(store, "h1", vault=None, clock=clock)
    counts = await count_store(store, now=now)
    assert counts.packets == {"hematocrit": Counter(forgotten=2, scored=1)}
    assert counts.deliveries == Counter(pending=1)
    assert counts.to_migrate == 0
    assert counts.problems(now=now) == ()
