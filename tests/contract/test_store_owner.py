"""A store belongs to the first site that uses it: with another's ids in hand, nothing of it is read or written."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from deployr_serve.adapters.store_owner import owned
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.ports import InferenceStore, Records

PROMISED = sorted(
    name
    for port in (InferenceStore, Records)
    for name, _ in inspect.getmembers(port, inspect.isfunction)
    if not name.startswith("_")
)


@pytest.fixture
def store(each_store):
    return each_store


async def test_whatever_is_asked_of_anothers_store_is_refused_and_changes_nothing(store, clock, packet_of):
    packet = packet_of("p" + "1" * 32)
    assert await owned(store, site=packet.site, clock=clock).create(packet) is not None
    other = owned(store, site="south", clock=clock)
    for name in PROMISED:
        with pytest.raises(StoreUnavailable) as refused:
            # It is not even looked at what is asked.
            await getattr(other, name)()
        assert refused.value.why == "another-site", name
        assert packet.site not in str(refused.value)
    assert (await store.read(packet.packet_id)).packet == packet


async def test_a_store_that_was_filled_before_stores_had_owners_is_its_packets_sites(store, clock, packet_of):
    packet = packet_of("p" + "1" * 32)
    await store.create(packet)
    with pytest.raises(StoreUnavailable, match="another site's"):
        await owned(store, site="south", clock=clock).check()
    assert (await owned(store, site=packet.site, clock=clock).read(packet.packet_id)).packet == packet


async def test_of_two_that_come_at_once_one_gets_it(store, clock):
    both = {site: owned(store, site=site, clock=clock) for site in ("north", "south")}
    # Whoever prepares it lays it out and looks at it first; that makes it nobody's.
    await both["north"].init()
    assert await both["south"].differences() == ()
    came = await asyncio.gather(*(each.check() for each in both.values()), return_exceptions=True)
    assert sorted(type(each).__name__ for each in came) == ["NoneType", "StoreUnavailable"]
    again = await asyncio.gather(*(each.check() for each in both.values()), return_exceptions=True)
    assert [each is None for each in again] == [each is None for each in came]
