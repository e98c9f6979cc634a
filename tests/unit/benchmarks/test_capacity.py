"""The capacity plan, by numbers that can be checked by hand, and its page."""

from __future__ import annotations

import math

import pytest

from benchmarks.capacity import Figures, Hospital, Limit, breaks_at, limits, packet_ru, plan
from benchmarks.capacity_page import PAGE, figures_of, tables, with_tables
from benchmarks.cosmos_calls import kind_of
from benchmarks.scale_hosts import HOSTS
from benchmarks.scale_results import read_kept
from deployr_core.packet_ids import derive_packet_id
from deployr_serve.adapters.cosmos_layout import LARGEST_PART
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.alert_tallies import PARTS, Tallies

# 86.4 orders a day are one in a thousand seconds.
TOWN = Hospital(beds=43.2, orders_a_bed=2.0, models=10, busiest_hour=2.0, together=1.0, occupied=0.5)
FIGURES = Figures(
    first_ms=30.0,
    further_ms=10.0,
    packet_ru=80.0,
    searches=6.0,
    writes=1.0,
    memory_mb=100.0,
    idle_cores=0.01,
    batch_ms=36.0,
)


def test_the_busiest_second_is_four_deviations_above_the_busiest_hour():
    at = plan(8_000, TOWN, FIGURES)
    assert at.orders == pytest.approx(8.0)
    assert at.orders_busy == pytest.approx(16.0)
    assert at.orders_peak == pytest.approx(16 + 4 * math.sqrt(16))  # 32
    assert at.packets == pytest.approx(80.0)
    assert at.packets_peak == pytest.approx(320.0)


def test_instances_are_sixty_percent_busy_with_the_busiest_second():
    at = plan(8_000, TOWN, FIGURES)
    # An order is 30 + 9 x 10 = 120 ms; 32 of them 3.84 cores; over 0.6 that is 6.4.
    assert at.cores == pytest.approx(3.84)
    assert at.instances == 7
    assert at.memory_gb == pytest.approx(0.7)


def test_there_are_never_fewer_than_two_instances():
    assert plan(1, TOWN, FIGURES).instances == 2


def test_the_store_is_provisioned_for_the_peak_or_for_its_partitions():
    at = plan(8_000, TOWN, FIGURES)
    # 80 packets x 86,400 s x 365 days x 7.8 kB.
    assert at.tb_a_year == pytest.approx(80 * 86_400 * 365 * 7.8e3 / 1e12)  # 19.7 TB
    assert at.partitions == 394  # 19,678.5 GB by 50 each
    assert at.ru_peak == pytest.approx(320 * 80)  # 25,600
    assert at.ru_provisioned == pytest.approx(39_400)  # 100 for each partition is more


def test_a_slot_is_worked_off_by_the_instances_side_by_side():
    at = plan(8_000, TOWN, FIGURES)
    # 8,000 x 43.2 x 0.5 patients, 10 models, 36 ms, by 7 instances that are 60 % busy.
    assert at.slot_minutes == pytest.approx(172_800 * 10 * 0.036 / 4.2 / 60)
    assert at.chunks == 3_456


def test_a_packet_is_charged_for_its_calls_and_its_label():
    # Create 8, batch 25, half a read of a record 0.5, and the label 22.
    assert packet_ru({"create packets": 1.0, "batch packets": 1.0, "read records": 0.5}) == pytest.approx(55.5)


def test_a_limit_breaks_where_its_load_reaches_one():
    limit = Limit(name="orders", most="4 a second", load=lambda at: at.orders / 4, of_site=True, hard=True, then="")
    assert breaks_at(limit, TOWN, FIGURES) == pytest.approx(4_000, abs=0.1)


def test_a_limit_of_the_deployment_counts_a_site_for_each_hospital():
    limit = Limit(name="sites", most="20 sites", load=lambda at: at.sites / 20, of_site=False, hard=True, then="")
    assert breaks_at(limit, TOWN, FIGURES) == pytest.approx(20, abs=0.1)


async def test_an_open_hour_of_the_alerts_holds_as_many_packets_as_the_plan_says(packet_of, clock):
    store, packets = MemoryStore(), 200
    for number in range(packets):
        about = {"environment": "TEST", "model_id": "hematocrit", "request_key": str(number)}
        packet_id = derive_packet_id(b"0123456789abcdef", **about)
        await store.create(packet_of(packet_id, site="s", started_at=clock.now()))
    await Tallies(store, store, clock=clock, site="s", slow_s=5.0).count()
    records = await store.records("alert-tally-s", now=clock.now())
    # Each packet of a record after the first has a comma before it.
    of_each = sum(len(each.content) - len('{"hematocrit":{}}') + 1 for each in records.values()) / packets
    assert len(records) == PARTS
    [limit] = [each for each in limits(Hospital()) if each.name.startswith("the alerts' counts")]
    assert limit.most == f"{PARTS * LARGEST_PART / of_each:,.0f} packets in an hour of a site"


def test_the_page_shows_what_is_reckoned_from_the_last_measurement():
    text = PAGE.read_text(encoding="utf-8")
    assert with_tables(text, tables(read_kept())) == text


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="expected a place for plan"):
        with_tables("no places", {"plan": "| |\n"})


def test_the_dearest_of_the_houses_counts():
    kept = read_kept()
    dearest = max((each.most or each.calm).processor_ms[HOSTS] for each in kept.houses)
    assert figures_of(kept).first_ms == dearest


@pytest.mark.parametrize(
    ("method", "path", "headers", "kind"),
    [
        ("POST", "/dbs/d/colls/packets/docs", {}, "create packets"),
        ("POST", "/dbs/d/colls/packets/docs/", {"x-ms-cosmos-is-batch-request": "True"}, "batch packets"),
        ("POST", "/dbs/d/colls/records/docs", {"X-Ms-Documentdb-Isquery": "True"}, "query records"),
        ("PUT", "/dbs/d/colls/packets/docs/packet:p0", {}, "replace packets"),
        ("GET", "/dbs/d/colls/packets/docs/packet:p0", {}, "read packets"),
        ("DELETE", "/dbs/d/colls/packets/docs/packet:p0", {}, "delete packets"),
        ("GET", "/dbs/d/colls/packets", {}, "layout"),
        ("GET", "/", {}, "layout"),
    ],
)
def test_a_call_of_the_store_is_named_by_what_it_does(method, path, headers, kind):
    assert kind_of(method, path, headers) == kind
