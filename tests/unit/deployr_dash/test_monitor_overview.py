"""Daily figures are those that counting by hand gives, from the cache as without it, and add up whatever the parts."""

from __future__ import annotations

import math
import shutil
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployr_dash.merging import CHANGED_SCHEMA, VECTORS_SCHEMA, Changes, Merging
from deployr_dash.overview import BUCKETS, COUNTED, WORDS, overview, write_overview
from deployr_dash.parts import Index, read_index
from deployr_dash.sketches import ACCURACY, SCORE_BINS, histogram, quantiles

MIDNIGHT = datetime(2015, 1, 7, tzinfo=UTC)


def row_of(packet_id, *, at=MIDNIGHT, **changes):
    counts = {f"deliveries_{state}": 0 for state in ("pending", "sent", "dead", "superseded", "expired")}
    row = {
        "packet_id": packet_id,
        "model_id": "hematocrit",
        "version": "1",
        "received_at": at,
        "started_at": at,
        "kind": "scored",
        "score": 0.5,
        "mode": "trial",
        "arm": "show",
        "emr_calls": 3,
        "latency_ms": 100.0,
        "month": f"{at:%Y-%m}",
    }
    return {**counts, **row, **changes}


@pytest.fixture
def folder_of(tmp_path):
    """Give a function that makes an extract of these rows, or adds them to it."""
    folder = tmp_path / "monitor"
    folder.mkdir()

    def make(*rows):
        changes = Changes()
        changes.packets.append(pa.Table.from_pylist(list(rows), schema=CHANGED_SCHEMA))
        changes.vectors.append(VECTORS_SCHEMA.empty_table())
        merging = Merging(folder, read_index(folder) if (folder / "extract.json").exists() else Index())
        merging.take(changes)
        merging.done(cursor="1", now=MIDNIGHT)
        return folder

    return make


def tally(found, what):
    """Give how many of each word or bucket there are."""
    rows = found.tallies[found.tallies["what"] == what]
    keys = rows["word"] if rows["bucket"].isna().all() else rows["bucket"].astype(int)
    return dict(rows.assign(key=keys).groupby("key", observed=True)["n"].sum())


def test_a_day_begins_at_midnight_utc_and_includes_it(folder_of):
    folder = folder_of(row_of("p1", at=MIDNIGHT - timedelta(microseconds=1)), row_of("p2"))
    days = dict(overview(folder).daily.groupby("day")["packets"].sum())
    assert {day.date(): count for day, count in days.items()} == {date(2015, 1, 6): 1, date(2015, 1, 7): 1}
    assert len(overview(folder, since=date(2015, 1, 7)).daily) == 1
    assert len(overview(folder, until=date(2015, 1, 7)).daily) == 1
    assert overview(folder, since=date(2015, 1, 8)).tallies.empty


def test_a_days_counts_are_those_by_hand(folder_of):
    observed = {"label_kind": "observed", "label_value": 1.0}
    folder = folder_of(
        row_of("p1", advised=True, shown_at=MIDNIGHT, response_at=MIDNIGHT, response="accepted", **observed),
        row_of("p2", score=0.25, label_kind="observed", label_value=0.0, deliveries_sent=2),
        row_of("p3", label_kind="censored", label_reason="died"),
        row_of("p4", score=7.5, value_unit="d", label_kind="observed", label_value=1.0),
        row_of("p5", kind="failed", reason="emr-timeout", score=None, mode=None, arm=None),
        row_of("p6", kind="received", score=None, mode=None, arm=None, latency_ms=None),
        row_of("p7", version="2"),
    )
    found = overview(folder)
    assert len(found.daily) == 3
    [trial] = found.daily[(found.daily["arm"] == "show") & (found.daily["version"] == "1")].to_dict("records")
    assert {name: trial[name] for name in COUNTED} == {
        "packets": 4,
        "received": 0,
        "scored": 4,
        "abstained": 0,
        "failed": 0,
        "rejected": 0,
        "advised": 1,
        "shown": 1,
        "answered": 1,
        "observed": 3,
        "censored": 1,
        # A number of 1 in its unit is no positive.
        "positive": 1,
        "emr_calls": 12,
        "deliveries_pending": 0,
        "deliveries_sent": 2,
        "deliveries_dead": 0,
        "deliveries_superseded": 0,
        "deliveries_expired": 0,
    }
    assert (trial["score_sum"], trial["last_at"]) == (0.5 + 0.25 + 0.5 + 7.5, MIDNIGHT)
    [without] = found.daily[found.daily["arm"].isna()].to_dict("records")
    assert (without["packets"], without["failed"], without["received"]) == (2, 1, 1)
    assert tally(found, "reason") == {"emr-timeout": 1}
    assert tally(found, "label_reason") == {"died": 1}
    assert tally(found, "response") == {"accepted": 1}
    # Of 50 bins, .5 is in the 25th and .25 in the 12th, from 0; a number in a unit is in none.
    assert tally(found, "score") == {25: 3, 12: 1}
    assert tally(found, "score_of_positive") == {25: 1}
    assert tally(found, "score_of_negative") == {12: 1}
    assert sum(tally(found, "latency_ms").values()) == 6
    assert set(found.tallies["what"]) <= {*WORDS, *BUCKETS}


def test_a_score_of_one_is_in_the_last_bin(folder_of):
    assert tally(overview(folder_of(row_of("p1", score=1.0), row_of("p2", score=0.0))), "score") == {49: 1, 0: 1}


def test_the_cache_gives_what_counting_gives_and_follows_the_packets(folder_of):
    folder = folder_of(row_of("p1"), row_of("p2", at=MIDNIGHT - timedelta(days=20)))
    write_overview(folder)
    cached = overview(folder)
    shutil.rmtree(folder / "overview")
    counted = overview(folder)
    for one, other in ((cached.daily, counted.daily), (cached.tallies, counted.tallies)):
        assert sorted(map(str, one.to_dict("records"))) == sorted(map(str, other.to_dict("records")))
    write_overview(folder)
    # The cache has not seen this; what it says of the month that changed does not count any more.
    folder_of(row_of("p1", label_kind="observed", label_value=1.0), row_of("p3"))
    found = overview(folder)
    assert (int(found.daily["packets"].sum()), int(found.daily["observed"].sum())) == (3, 1)
    write_overview(folder)
    again = overview(folder)
    assert (int(again.daily["packets"].sum()), int(again.tallies["n"].sum())) == (3, int(found.tallies["n"].sum()))


def test_what_is_in_the_cache_is_not_counted_again(folder_of, monkeypatch):
    folder = folder_of(row_of("p1"))
    write_overview(folder)

    def refuse(**_):
        raise AssertionError

    monkeypatch.setattr(duckdb, "connect", refuse)
    assert int(overview(folder).daily["packets"].sum()) == 1


@pytest.mark.parametrize("spoil", ["cut short", "another version's"])
def test_a_cache_that_cannot_be_read_is_counted_anew(folder_of, spoil):
    folder = folder_of(row_of("p1"))
    write_overview(folder)
    file = folder / "overview" / "daily.parquet"
    if spoil == "cut short":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        pq.write_table(pa.table({"day": [1]}), file)
    assert int(overview(folder).daily["packets"].sum()) == 1


def test_only_one_model_is_given_if_one_is_asked_for(folder_of):
    folder = folder_of(row_of("p1"), row_of("p2", model_id="anemia"))
    assert overview(folder, model="anemia").daily["model_id"].tolist() == ["anemia"]


# -- sketches


def test_quantiles_of_merged_parts_are_within_one_percent(folder_of):
    milliseconds = np.random.default_rng(0).lognormal(6, 1, 2000)
    rows = [
        row_of(f"p{i}", at=MIDNIGHT - timedelta(days=i % 40), latency_ms=float(each))
        for i, each in enumerate(milliseconds)
    ]
    found = overview(folder_of(*rows))
    buckets = found.tallies[found.tallies["what"] == "latency_ms"]
    shares = np.array([0.0, 0.5, 0.95, 0.99, 1.0])
    got = quantiles(buckets["bucket"].to_numpy(dtype=np.int64), buckets["n"].to_numpy(), shares)
    ranks = np.floor(shares * 1999).astype(int)
    assert np.abs(got / np.sort(milliseconds)[ranks] - 1).max() <= ACCURACY * (1 + 1e-9)


def test_durations_of_nothing_and_of_none_are_told_apart(folder_of):
    found = overview(folder_of(row_of("p1", latency_ms=0.0)))
    buckets = found.tallies[found.tallies["what"] == "latency_ms"]
    [median] = quantiles(buckets["bucket"].to_numpy(dtype=np.int64), buckets["n"].to_numpy(), np.array([0.5]))
    assert 0 < median < 0.0011
    none = np.array([], dtype=np.int64)
    assert math.isnan(quantiles(none, none, np.array([0.5]))[0])


def test_a_histogram_adds_up_what_is_in_a_bin_several_times():
    found = histogram(np.array([3, 3, 49]), np.array([1, 2, 5]))
    assert (found[3], found[49], found.sum(), len(found)) == (3, 5, 8, SCORE_BINS)
