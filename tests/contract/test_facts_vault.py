"""What `deployr_serve.core.facts_kept.FactsVault` promises, held against both vaults there are."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from deployr_serve.adapters.blob_bodies import blob_container
from deployr_serve.adapters.facts_sealing import sealed
from deployr_serve.adapters.facts_vault_blob import BlobFactsVault
from deployr_serve.adapters.facts_vault_sqlite import SqliteFactsVault
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.facts_kept import FactsUnreadable, facts_bytes, facts_of
from deployr_serve.core.sealing_keys import SealingKeys, read_sealing_keys

KEYS = SealingKeys(newest="2026", keys={"2026": b"\x01" * 32, "2025": b"\x02" * 32})
CONTENT = b'{"patient":"a name that must not be found"}'
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DAY = timedelta(days=1)


@pytest.fixture(params=["sqlite", "blobs"])
async def vault_of(request, tmp_path):
    """Give a function that opens the one vault of this test, with other keys if they are given."""
    opened = []
    name = f"facts-{abs(hash(request.node.name)) % 10**9}"
    azurite = request.getfixturevalue("azurite") if request.param == "blobs" else None

    def make(keys=KEYS):
        if azurite is None:
            vault = SqliteFactsVault(tmp_path / "facts.sqlite", keys=keys)
        else:
            vault = BlobFactsVault(blob_container(azurite, credential=None, within_s=5.0, container=name), keys=keys)
        opened.append(vault)
        return vault

    yield make
    for one in opened:
        await one.aclose()


@pytest.fixture
def vault(vault_of):
    return vault_of()


async def test_what_was_kept_is_read_back_until_it_expires(vault, now):
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    assert await vault.read("p01", DIGEST, now=now) == CONTENT
    assert await vault.read("p01", DIGEST, now=now + DAY - timedelta(microseconds=1)) == CONTENT
    assert await vault.read("p01", DIGEST, now=now + DAY) is None


async def test_what_was_never_kept_is_none(vault, now):
    assert await vault.read("p01", DIGEST, now=now) is None
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    assert await vault.read("p02", DIGEST, now=now) is None
    assert await vault.read("p01", "0" * 64, now=now) is None


async def test_keeping_the_same_again_changes_nothing(vault, now):
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + 2 * DAY)
    assert await vault.read("p01", DIGEST, now=now + DAY) is None


async def test_two_attempts_at_a_packet_keep_their_facts_side_by_side(vault, now):
    other = hashlib.sha256(b"others").hexdigest()
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    await vault.keep("p01", other, b"others", expires_at=now + DAY)
    assert await vault.read("p01", DIGEST, now=now) == CONTENT
    assert await vault.read("p01", other, now=now) == b"others"


async def test_forgetting_a_packet_erases_all_of_it_and_nothing_else(vault, now):
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    await vault.keep("p01", hashlib.sha256(b"others").hexdigest(), b"others", expires_at=now + DAY)
    await vault.keep("p011", DIGEST, CONTENT, expires_at=now + DAY)
    assert await vault.forget("p01") == 2
    assert await vault.read("p01", DIGEST, now=now) is None
    assert await vault.read("p011", DIGEST, now=now) == CONTENT
    assert await vault.forget("p01") == 0


async def test_a_purge_erases_what_has_expired_and_nothing_else(vault, now):
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    await vault.keep("p02", DIGEST, CONTENT, expires_at=now + 3 * DAY)
    assert await vault.purge(now=now) == 0
    # In blobs a purge goes by whole days.
    assert await vault.purge(now=now + 2 * DAY) == 1
    assert await vault.forget("p01") == 0
    assert await vault.read("p02", DIGEST, now=now + 2 * DAY) == CONTENT
    assert await vault.purge(now=now + 2 * DAY) == 0


async def test_an_empty_vault_has_nothing_to_erase(vault, now):
    assert await vault.purge(now=now) == 0
    assert await vault.forget("p01") == 0


async def test_after_a_rotation_the_new_key_seals_and_both_open(vault_of, now):
    old = SealingKeys(newest="2025", keys={"2025": b"\x02" * 32})
    await vault_of(old).keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    vault = vault_of(KEYS)
    await vault.keep("p02", DIGEST, CONTENT, expires_at=now + DAY)
    assert await vault.read("p01", DIGEST, now=now) == CONTENT
    assert await vault_of(old).read("p01", DIGEST, now=now) == CONTENT
    with pytest.raises(FactsUnreadable, match="expected the key '2026'"):
        await vault_of(old).read("p02", DIGEST, now=now)


async def test_another_key_of_the_same_name_opens_nothing(vault_of, now):
    await vault_of(KEYS).keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    with pytest.raises(FactsUnreadable, match="changed or moved"):
        await vault_of(replace(KEYS, keys={"2026": b"\x03" * 32})).read("p01", DIGEST, now=now)


# -- what is stored


async def test_a_record_that_is_moved_to_another_packet_is_noticed(tmp_path, now):
    vault = SqliteFactsVault(tmp_path / "facts.sqlite", keys=KEYS)
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    with closing(sqlite3.connect(tmp_path / "facts.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE facts SET packet_id = 'p02'")
    with pytest.raises(FactsUnreadable, match="changed or moved"):
        await vault.read("p02", DIGEST, now=now)
    await vault.aclose()


@pytest.mark.parametrize("place", [0, 1, 2, 6, 20, -1])
async def test_a_record_with_one_bit_flipped_is_noticed(tmp_path, now, place):
    vault = SqliteFactsVault(tmp_path / "facts.sqlite", keys=KEYS)
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    with closing(sqlite3.connect(tmp_path / "facts.sqlite", isolation_level=None)) as db:
        [record] = db.execute("SELECT record FROM facts").fetchone()
        spoilt = bytearray(record)
        spoilt[place] ^= 1
        db.execute("UPDATE facts SET record = ?", (bytes(spoilt),))
    with pytest.raises(FactsUnreadable):
        await vault.read("p01", DIGEST, now=now)
    await vault.aclose()


async def test_nothing_readable_is_in_the_file_nor_after_it_was_erased(tmp_path, now):
    vault = SqliteFactsVault(tmp_path / "facts.sqlite", keys=KEYS)
    await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    record = sealed(CONTENT, KEYS, packet_id="p01", digest=DIGEST)
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"must not be found" not in held
    assert b"must not be found" not in record
    await vault.forget("p01")
    await vault.aclose()
    # With the log folded in, the erased record's cipher text is gone from the file, too.
    assert b"2026" not in (tmp_path / "facts.sqlite").read_bytes()


async def test_a_vault_that_cannot_be_opened_says_so(tmp_path, now):
    vault = SqliteFactsVault(tmp_path / "nowhere" / "facts.sqlite", keys=KEYS)
    with pytest.raises(StoreUnavailable):
        await vault.keep("p01", DIGEST, CONTENT, expires_at=now + DAY)
    gone = BlobFactsVault(
        blob_container(
            "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a",
            credential=None,
            within_s=0.2,
            container="facts",
        ),
        keys=KEYS,
    )
    with pytest.raises(StoreUnavailable):
        await gone.read("p01", DIGEST, now=now)
    await gone.aclose()


# -- facts and keys as bytes


def test_facts_come_back_as_they_were_fetched_and_the_same_facts_are_the_same_bytes(fetched_of, lab_of):
    # 0.1 + 0.2 needs all its digits; microseconds and an empty unit must survive, too.
    lab = lab_of(value=0.1 + 0.2, unit="", at=lab_of().at + timedelta(microseconds=1))
    fetched = replace(fetched_of(lab, lab_of("lab2", value=None)), oldest_answer_s=12.5)
    again = facts_of(facts_bytes(fetched))
    assert again == fetched
    assert facts_bytes(again) == facts_bytes(fetched)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"schema_version":1,"facts":"x"}'])
def test_what_is_no_facts_is_refused_without_being_repeated(content):
    with pytest.raises(FactsUnreadable, match="expected facts as this version of deployr keeps them"):
        facts_of(content)


def test_facts_of_a_later_schema_are_refused(fetched_of):
    content = facts_bytes(fetched_of()).replace(b'"schema_version":1', b'"schema_version":2')
    with pytest.raises(FactsUnreadable, match="schema version 1, got 2"):
        facts_of(content)


def test_keys_are_read_one_a_line_or_with_commas_the_newest_first():
    one, other = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    for text in (f"2026:{one}\n2025:{other}\n", f" 2026:{one}, 2025:{other}"):
        assert read_sealing_keys(text) == KEYS
    assert "AQEB" not in repr(KEYS)
    assert "x01" not in repr(KEYS)


@pytest.mark.parametrize(
    "text", ["", "2026", "2026:", "2026:AQEB", "20 26:" + "A" * 43 + "=", "k:" + "A" * 43 + "=,k:" + "A" * 43 + "="]
)
def test_keys_that_cannot_be_used_are_refused_and_not_repeated(text):
    with pytest.raises(ValueError, match="32 bytes in base64") as caught:
        read_sealing_keys(text)
    assert "AAAA" not in str(caught.value)
    assert "AQEB" not in str(caught.value)
