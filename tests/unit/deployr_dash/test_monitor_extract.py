"""An extract holds what the store says, whenever it changed, whatever interrupted it, and no identity."""

from __future__ import annotations

import os
import stat
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE
from deployr_core.forgetting import derive_patient_hash, forgotten
from deployr_core.packet import Abstained, Attempt, Event, EventKind, Label, ModelRef, Observed, StoredVector
from deployr_core.packet_ids import derive_clinician_hash, derive_event_id
from deployr_dash import extract as extracting
from deployr_dash import merging
from deployr_dash.codes import CODES_FILE, Codes, ExtractBusy, codes_of
from deployr_dash.extract import extract
from deployr_dash.loading import load_features, load_frame, load_models
from deployr_dash.overview import overview
from deployr_dash.parts import INDEX_FILE, ExtractMissing, ExtractUnusable, Index, on_current_parts, read_index
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.errors import StoreUnavailable

KEY = b"a-key-of-the-tests-own"
DIGEST = "b" * 64


@pytest.fixture
def store(each_store):
    return each_store


@pytest.fixture
def memory():
    return MemoryStore()


class FakeBundles:
    """Holds one bundle's manifest and declaration, by the digest that the tests' packets name."""

    def __init__(self, files):
        self._files = files

    def files(self, digest):
        return {name: self._files[name] for name in (MANIFEST_FILE, FEATURES_FILE)} if digest == DIGEST else None


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "monitor"


@pytest.fixture
def run(folder, bundle_files, now):
    async def make(store, **options):
        return await extract(store, folder, bundles=FakeBundles(bundle_files), now=now, **options)

    return make


@pytest.fixture
def scored(packet_of, bundle):
    """Give a function that makes a packet scored by the bundle, about somebody."""

    def make(packet_id="p01", *, patient="p1", days=0, **changes):
        packet = packet_of(packet_id, patient_id=patient, patient_hash=derive_patient_hash(KEY, patient))
        instant = packet.started_at + timedelta(days=days)
        vector = msgspec.structs.replace(packet.outcome.vector, spec_sha256=bundle.spec.digest())
        return msgspec.structs.replace(
            packet,
            **{
                "outcome": msgspec.structs.replace(packet.outcome, vector=vector),
                "trigger": msgspec.structs.replace(packet.trigger, received_at=instant),
                "started_at": instant,
                "updated_at": instant + timedelta(seconds=1),
                **changes,
            },
        )

    return make


def label_of(packet_id, now, value=1.0):
    outcome = Observed(value=value, at=now, known_at=now, source_id="CANARY-SOURCE")
    label_id = f"{packet_id}.lab-component"
    return Label(label_id=label_id, packet_id=packet_id, rule="lab-component", outcome=outcome, attached_at=now)


def files_in(folder):
    """Give the content of every file by name, the codes apart."""
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    found.pop(CODES_FILE)
    return found


def rows_in(folder):
    """Give the packets by id, without what is a map."""
    frame = load_frame(folder, columns=("packet_id", "row", "kind", "score", "label_value", "shown_at", "patient_code"))
    return {row["packet_id"]: row for row in frame.astype(object).where(frame.notna(), None).to_dict("records")}


# -- what is in it


async def test_what_changed_is_read_again_and_keeps_its_place(store, run, folder, scored, now):
    for number in range(3):
        await store.create(scored(f"p0{number}"))
    assert (await run(store)).read == 3
    before = rows_in(folder)
    assert {each["row"] for each in before.values()} == {0, 1, 2}
    await store.attach_label(label_of("p01", now))
    event_id = derive_event_id("p02", EventKind.SHOWN, now)
    await store.append_event(Event(event_id=event_id, packet_id="p02", kind=EventKind.SHOWN, at=now))
    done = await run(store)
    after = rows_in(folder)
    assert (done.rows, after["p01"]["label_value"], after["p02"]["shown_at"]) == (3, 1.0, now)
    assert {name: row["row"] for name, row in after.items()} == {name: row["row"] for name, row in before.items()}
    assert after["p00"] == before["p00"]
    assert len(load_features(folder, model="hematocrit", version="1.0.0").rows) == 3


@pytest.mark.parametrize("kind", [MemoryStore, SqliteStore])
async def test_only_what_changed_is_read_and_no_table_is_written_where_nothing_did(
    tmp_path, run, folder, scored, now, kind
):
    store = kind() if kind is MemoryStore else SqliteStore(tmp_path / "store.sqlite")
    for number in range(3):
        await store.create(scored(f"p0{number}"))
    await run(store)
    before = files_in(folder)
    assert (await run(store)).read == 0
    assert files_in(folder).keys() == before.keys()
    assert read_index(folder).packets == msgspec.json.decode(before[INDEX_FILE], type=Index).packets
    await store.attach_label(label_of("p01", now))
    assert (await run(store)).read == 1
    await store.aclose()


async def test_an_empty_store_gives_an_empty_extract(memory, run, folder):
    assert (await run(memory)).rows == 0
    assert len(load_frame(folder)) == 0
    assert overview(folder).daily.empty
    assert load_features(folder, model="hematocrit", version="1.0.0").starts.tolist() == [0]
    assert load_models(folder) == ()


async def test_a_packet_gets_its_features_when_it_is_scored_and_once(memory, run, folder, scored, received):
    created = await memory.create(scored(outcome=received))
    await run(memory)
    assert rows_in(folder)["p01"]["kind"] == "received"
    assert len(load_features(folder, model="hematocrit", version="1.0.0").rows) == 0
    held = await memory.replace(scored(), etag=created.etag)
    await run(memory)
    await memory.replace(scored(facts_sha256="f" * 64), etag=held.etag)
    await run(memory)
    features = load_features(folder, model="hematocrit", version="1.0.0")
    assert (features.rows.tolist(), features.starts.tolist(), features.columns.tolist()) == ([0], [0, 2], [0, 2])
    assert features.values.tolist() == [1.0, 1.0]
    assert len(features.names) == len(features.groups) == 6


async def test_features_are_apart_by_version_and_of_the_period_that_is_asked_for(memory, run, folder, scored, now):
    for packet_id, version, days in (("p01", "1.0.0", 0), ("p02", "2.0.0", 0), ("p03", "1.0.0", 3)):
        model = ModelRef(model_id="hematocrit", version=version, bundle_sha256=DIGEST)
        await memory.create(scored(packet_id, model=model, days=days))
    await run(memory)
    assert len(load_features(folder, model="hematocrit", version="2.0.0").rows) == 1
    later = load_features(folder, model="hematocrit", version="1.0.0", since=now + timedelta(days=3))
    assert later.received_at.tolist() == [np.datetime64((now + timedelta(days=3)).replace(tzinfo=None)).item()]
    assert load_features(folder, model="hematocrit", version="1.0.0", until=now + timedelta(days=3)).rows.shape == (1,)


async def test_a_period_includes_its_first_instant_and_excludes_its_last(memory, run, folder, scored, now):
    for number, days in enumerate((0, 1, 40)):
        await memory.create(scored(f"p0{number}", days=days))
    await run(memory)
    # The last one is another month's, and a file of its own.
    assert len(read_index(folder).packets) == 2

    def ids(**period):
        return sorted(load_frame(folder, columns=("packet_id",), **period)["packet_id"])

    assert ids(since=now, until=now + timedelta(days=1)) == ["p00"]
    assert ids(since=now + timedelta(days=1)) == ["p01", "p02"]
    assert ids(until=now) == []
    assert ids(model="another") == []
    with pytest.raises(ValueError, match="got nonsense"):
        load_frame(folder, columns=("nonsense",))


async def test_columns_come_as_they_are_asked_for_and_have_one_type_whatever_is_missing(memory, run, folder, scored):
    await memory.create(scored())
    await run(memory)
    frame = load_frame(folder, columns=("unit_code", "advised", "kind", "received_at"))
    assert list(frame) == ["unit_code", "advised", "kind", "received_at"]
    assert [str(each) for each in frame.dtypes] == ["Int64", "boolean", "category", "datetime64[us, UTC]"]


async def test_a_retried_packet_stays_in_the_month_it_was_asked_for_first(memory, run, folder, scored, received, now):
    created = await memory.create(scored(outcome=received))
    await run(memory)
    attempt = Attempt(started_at=now, ended_at=now, reason="lease-expired")
    await memory.replace(scored(days=40, earlier_attempts=(attempt,)), etag=created.etag)
    await run(memory)
    assert rows_in(folder)["p01"]["kind"] == "scored"
    assert len(load_frame(folder, since=now + timedelta(days=40))) == 1


async def test_bundles_come_along_and_packets_without_theirs_are_counted(memory, run, folder, scored, bundle):
    unknown = ModelRef(model_id="hematocrit", version="0.9", bundle_sha256="0" * 64)
    await memory.create(scored("p01"))
    await memory.create(scored("p02", model=unknown))
    assert (await run(memory)).without_bundle == 1
    [model] = load_models(folder)
    assert (model.bundle_sha256, model.spec, model.manifest) == (DIGEST, bundle.spec, bundle.manifest)
    assert load_features(folder, model="hematocrit", version="0.9").names == ()


# -- nobody is named in it


async def test_nothing_that_names_a_person_gets_out(store, run, folder, scored, now):
    packet = scored(patient="CANARY-PATIENT", clinician_hash=derive_clinician_hash(KEY, "CANARY-CLINICIAN"))
    packet = msgspec.structs.replace(
        packet,
        subject=msgspec.structs.replace(packet.subject, encounter_id="CANARY-ENCOUNTER", order_id="CANARY-ORDER"),
        trigger=msgspec.structs.replace(packet.trigger, correlation_id="CANARY-CORRELATION", caller="CANARY-CALLER"),
        outcome=msgspec.structs.replace(packet.outcome, entity_id="CANARY-CSN"),
    )
    await store.create(packet)
    await store.attach_label(label_of("p01", now))
    event_id = derive_event_id("p01", EventKind.OVERRIDDEN, now)
    comment = Event(event_id=event_id, packet_id="p01", kind=EventKind.OVERRIDDEN, at=now, comment="CANARY-COMMENT")
    await store.append_event(comment)
    await run(store)
    shown = str(load_frame(folder).to_dict("records")) + str(overview(folder))
    for marked in (b"CANARY", packet.patient_hash.encode(), packet.clinician_hash.encode()):
        assert not any(marked in content for content in files_in(folder).values())
        assert marked.decode() not in shown
    # Compressed pages would hide it: the one file that may hold the hashes does hold them, for its owner alone.
    assert packet.patient_hash.encode() in (folder / CODES_FILE).read_bytes()
    assert packet.clinician_hash.encode() in (folder / CODES_FILE).read_bytes()
    assert stat.S_IMODE((folder / CODES_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_patient_is_one_number_in_all_runs_and_nobody_elses(memory, run, folder, scored, packet_of):
    await memory.create(scored("p01", patient="anna"))
    await memory.create(scored("p02", patient="ben"))
    await run(memory)
    await memory.create(scored("p03", patient="anna"))
    await memory.create(packet_of("p04"))
    await run(memory)
    codes = {name: row["patient_code"] for name, row in rows_in(folder).items()}
    assert codes["p01"] == codes["p03"] != codes["p02"]
    # Packets that were not migrated are nobody's.
    assert codes["p04"] is None


async def test_a_clinician_is_one_number_in_all_runs_until_the_last_of_their_packets_is_gone(
    memory, run, folder, scored, now
):
    anna, ben = (derive_clinician_hash(KEY, name) for name in ("dr anna", "dr ben"))
    await memory.create(scored("p01", patient="p1", clinician_hash=anna))
    await memory.create(scored("p02", patient="p2", clinician_hash=ben))
    await run(memory)
    await memory.create(scored("p03", patient="p3", clinician_hash=anna))
    await memory.create(scored("p04", patient="p4"))
    await run(memory)
    frame = load_frame(folder, columns=("packet_id", "clinician_code")).set_index("packet_id")["clinician_code"]
    assert frame["p01"] == frame["p03"] != frame["p02"]
    assert frame.isna()["p04"]
    for packet_id, is_left in (("p01", True), ("p03", False)):
        held = await memory.read(packet_id)
        await memory.erase(packet_id, leaving=forgotten(held.packet, at=now))
        await run(memory)
        content = (folder / CODES_FILE).read_bytes()
        assert (anna.encode() in content) is is_left
        assert ben.encode() in content


async def test_a_forgotten_patient_is_gone_from_every_file(store, run, folder, scored, now):
    for packet_id, patient in (("p01", "anna"), ("p02", "ben")):
        await store.create(scored(packet_id, patient=patient))
    await run(store)
    held = await store.read("p01")
    await store.erase("p01", leaving=forgotten(held.packet, at=now + timedelta(days=99)))
    done = await run(store)
    assert (done.rows, set(rows_in(folder))) == (1, {"p02"})
    assert load_features(folder, model="hematocrit", version="1.0.0").rows.tolist() == [rows_in(folder)["p02"]["row"]]
    assert int(overview(folder).daily["packets"].sum()) == 1
    content = (folder / CODES_FILE).read_bytes()
    assert derive_patient_hash(KEY, "anna").encode() not in content
    assert derive_patient_hash(KEY, "ben").encode() in content
    # Whoever comes next does not get the number that is free.
    await store.create(scored("p03", patient="cleo"))
    await run(store)
    assert rows_in(folder)["p03"]["patient_code"] == 3


async def test_a_run_that_is_killed_before_numbers_are_forgotten_is_made_up_for(
    memory, run, folder, scored, now, monkeypatch
):
    await memory.create(scored("p01", patient="anna"))
    await run(memory)
    held = await memory.read("p01")
    await memory.erase("p01", leaving=forgotten(held.packet, at=now))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Codes, "forget_all_but", killed)
        with pytest.raises(KeyboardInterrupt):
            await run(memory)
    assert derive_patient_hash(KEY, "anna").encode() in (folder / CODES_FILE).read_bytes()
    await run(memory)
    assert derive_patient_hash(KEY, "anna").encode() not in (folder / CODES_FILE).read_bytes()


async def test_what_is_kept_no_longer_is_dropped_by_its_kind(memory, run, folder, scored, now):
    await memory.create(scored("p01"))
    await memory.create(scored("p02", outcome=Abstained(reason="stale")))
    await memory.create(scored("p03", outcome=Abstained(reason="stale"), days=1))
    await run(memory, kept_since={"scored": now, "abstained": now})
    assert set(rows_in(folder)) == {"p01", "p02", "p03"}
    await run(memory, kept_since={"scored": now, "abstained": now + timedelta(days=1)})
    assert set(rows_in(folder)) == {"p01", "p03"}


# -- whatever interrupts it


async def test_wherever_the_disk_fails_what_was_there_stands_and_the_next_run_makes_it_whole(
    memory, run, folder, scored, now, monkeypatch
):
    monkeypatch.setattr(extracting, "_STEP", 2)
    monkeypatch.setattr(extracting, "_PAGE", 2)
    for number in range(3):
        await memory.create(scored(f"p0{number}", patient=f"patient-{number}", days=20 * number))
    await run(memory)
    for number in range(3):
        await memory.attach_label(label_of(f"p0{number}", now))
    await memory.create(scored("p03"))
    states = {}
    flush, flushed, failing_at = os.fsync, 0, 0

    def failing(descriptor):
        nonlocal flushed
        flushed += 1
        if flushed == failing_at:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    while True:
        failing_at, flushed = failing_at + 1, 0
        try:
            await run(memory)
        except OSError:
            rows = rows_in(folder)
            # Each packet once, as it was before or as it is now.
            assert {"p00", "p01", "p02"} <= set(rows)
            assert len(load_features(folder, model="hematocrit", version="1.0.0").rows) == len(rows)
            assert int(overview(folder).daily["packets"].sum()) == len(rows)
            assert not list(folder.rglob("*.part"))
            states[failing_at] = len(rows)
            continue
        break
    # Both steps have files of packets and of features, the index, and the overview.
    assert len(states) >= 6
    rows = rows_in(folder)
    assert {name: row["label_value"] for name, row in rows.items()} == {"p00": 1.0, "p01": 1.0, "p02": 1.0, "p03": None}
    assert sorted(row["row"] for row in rows.values()) == [0, 1, 2, 3]
    assert len({row["patient_code"] for row in rows.values()}) == 4
    index = read_index(folder)
    kept = {file.name for kind in ("packets", "features") for file in (folder / kind).iterdir()}
    assert kept == {name.partition("/")[2] for name in index.files}


async def test_a_store_that_goes_down_on_the_way_leaves_what_was_read(run, folder, scored, monkeypatch):
    class Failing(MemoryStore):
        pages = 2

        async def changed(self, **asked):
            if not self.pages:
                raise StoreUnavailable("expected a store that answers")
            self.pages -= 1
            return await super().changed(**asked)

    monkeypatch.setattr(extracting, "_STEP", 2)
    monkeypatch.setattr(extracting, "_PAGE", 2)
    store = Failing()
    for number in range(5):
        await store.create(scored(f"p0{number}"))
    with pytest.raises(StoreUnavailable):
        await run(store)
    assert len(rows_in(folder)) == 4
    store.pages = 99
    assert (await run(store)).read == 1
    assert len(rows_in(folder)) == 5


async def test_two_extracts_into_one_folder_are_refused(memory, run, folder, scored):
    await memory.create(scored())
    with codes_of(folder), pytest.raises(ExtractBusy, match="no other extract"):
        await run(memory)
    assert (await run(memory)).rows == 1


async def test_reading_anew_gives_the_same_and_keeps_the_numbers_of_patients(memory, run, folder, scored):
    for number in range(3):
        await memory.create(scored(f"p0{number}", patient=f"patient-{number}"))
    await run(memory)
    before = rows_in(folder)
    assert (await run(memory, anew=True)).read == 3
    assert rows_in(folder) == before


async def test_an_extract_of_another_layout_is_made_anew(memory, run, folder, scored):
    await memory.create(scored())
    await run(memory)
    index = msgspec.json.decode((folder / INDEX_FILE).read_bytes())
    (folder / INDEX_FILE).write_bytes(msgspec.json.encode(index | {"layout": 1}))
    with pytest.raises(ExtractUnusable, match="layout 1; make it anew with deployr monitor extract --anew"):
        load_frame(folder)
    await memory.create(scored("p02"))
    assert (await run(memory, anew=True)).read == 2
    assert len(rows_in(folder)) == 2
    # No file of another layout had the name of one of this, so that nothing counted before is taken for it.
    assert not {each["file"] for each in index["packets"]} & read_index(folder).files
    assert int(overview(folder).daily["packets"].sum()) == 2


async def test_a_replays_clock_tells_no_times_to_answer(memory, run, folder, scored):
    await memory.create(scored())
    await run(memory)
    assert load_frame(folder)["latency_ms"].notna().all()
    await run(memory, anew=True, replayed=True)
    assert load_frame(folder)[["latency_ms", "emr_ms"]].isna().all(axis=None)


async def test_whoever_reads_while_files_are_replaced_reads_again(memory, run, folder, scored):
    await memory.create(scored())
    await run(memory)
    seen = []

    def work(index):
        seen.append(index.generation)
        if len(seen) == 1:
            raise FileNotFoundError
        return "read"

    assert on_current_parts(folder, work) == "read"
    assert len(seen) == 2


async def test_a_folder_without_an_extract_says_what_to_do(tmp_path):
    for read in (load_frame, overview):
        with pytest.raises(ExtractMissing, match="deployr monitor extract makes one"):
            read(tmp_path / "nothing")


async def test_many_small_runs_leave_few_files(memory, run, folder, scored, monkeypatch):
    monkeypatch.setattr(merging, "_MOST_PARTS", 3)
    for number in range(9):
        await memory.create(scored(f"p0{number}"))
        await run(memory)
    assert len(read_index(folder).features) <= 3
    features = load_features(folder, model="hematocrit", version="1.0.0")
    assert sorted(features.rows.tolist()) == list(range(9))
    assert features.starts.tolist() == [2 * number for number in range(10)]


async def test_a_vector_of_many_features_comes_back_row_by_row(memory, run, folder, scored, bundle):
    for packet_id, indices, values in (("p01", (1, 4), (2.5, 7.0)), ("p02", (), ()), ("p03", (5,), (1.0,))):
        packet = scored(packet_id)
        vector = StoredVector(spec_sha256=bundle.spec.digest(), size=6, indices=indices, values=values)
        await memory.create(
            msgspec.structs.replace(packet, outcome=msgspec.structs.replace(packet.outcome, vector=vector))
        )
    await run(memory)
    features = load_features(folder, model="hematocrit", version="1.0.0")
    assert (features.rows.tolist(), features.starts.tolist()) == ([0, 1, 2], [0, 2, 2, 3])
    assert (features.columns.tolist(), features.values.tolist()) == ([1, 4, 5], [2.5, 7.0, 1.0])
