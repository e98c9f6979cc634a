"""Audit records on the disk, and how they get to a FHIR server."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from deployr_serve.adapters import audit_folder
from deployr_serve.adapters.audit_feed import AuditFeed
from deployr_serve.adapters.audit_folder import AuditFolder, read_lines
from deployr_serve.adapters.http import Response
from deployr_serve.core.audit import Act, of_operator
from deployr_serve.core.errors import EmrUnreachable


@pytest.fixture
def folder(tmp_path, clock):
    made = AuditFolder(tmp_path / "audit", site="stanford", environment="PRD", clock=clock)
    yield made
    made.close()


@pytest.fixture
def act(now):
    """Give a function that makes the record of an operator's act; each has an id of its own."""

    def make(number, *, at=now):
        return of_operator(Act.SWITCH, at=at, by="ops", said=f"act {number}")

    return make


def said(folder):
    """Give what all lines of all files say, whole ones only."""
    events = [event for _, file in folder.days() for event in read_lines(file, offset=0, limit=10**6)[0]]
    return [event["outcomeDesc"] for event in events]


def test_a_record_is_in_the_days_file_when_it_has_been_given(folder, act, clock):
    folder.record(act(1))
    clock.pass_time(6 * 3600)  # from 20:55Z into the next day
    folder.record(act(2))
    assert [day for day, _ in folder.days()] == ["2015-01-06", "2015-01-07"]
    assert said(folder) == ["act 1", "act 2"]
    assert all(file.stat().st_mode & 0o777 == 0o600 for _, file in folder.days())


def test_only_whole_days_that_have_ended_are_removed(folder, act, clock, now):
    folder.record(act(1))
    midnight = now.replace(hour=0, minute=0) + timedelta(days=1)
    assert folder.remove_before(midnight + timedelta(hours=23)) == 0
    assert folder.remove_before(midnight + timedelta(days=1)) == 1
    assert said(folder) == []


def test_nothing_is_forced_to_the_disk_before_the_record_has_been_given(folder, act, clock, monkeypatch):
    threads = []
    monkeypatch.setattr(audit_folder.os, "fsync", lambda _: threads.append(threading.current_thread()))
    folder.record(act(1))
    assert threads == []
    clock.pass_time(1.0)
    folder.record(act(2))
    folder.close()
    assert len(threads) == 2
    assert threading.current_thread() not in threads


def test_while_the_folder_cannot_be_written_records_wait_and_keep_their_order(tmp_path, act, clock, caplog):
    blocked = tmp_path / "audit"
    blocked.write_text("a file where the folder should be")
    folder = AuditFolder(blocked, site="stanford", environment="PRD", clock=clock)
    for number in (1, 2, 3):
        folder.record(act(number))
    assert folder.waiting == 3
    assert [line for line in caplog.messages if "alert=audit-not-written" in line] == [
        "alert=audit-not-written waiting=1 error=File exists"
    ]
    blocked.unlink()
    folder.write_waiting()
    assert said(folder) == ["act 1", "act 2", "act 3"]
    assert folder.waiting == 0
    folder.close()


def test_what_there_is_no_room_for_goes_to_the_log_as_a_whole(tmp_path, act, clock, caplog, monkeypatch):
    monkeypatch.setattr(audit_folder, "MOST_WAITING", 2)
    (tmp_path / "audit").write_text("")
    folder = AuditFolder(tmp_path / "audit", site="stanford", environment="PRD", clock=clock)
    for number in (1, 2, 3):
        folder.record(act(number))
    [lost] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert json.loads(lost.getMessage().partition("event=")[2])["outcomeDesc"] == "act 1"
    assert folder.waiting == 2


def test_a_line_of_which_a_full_disk_took_a_part_is_written_again_as_a_whole(folder, act, monkeypatch):
    write, room = os.write, [10]

    def short(descriptor, content):
        taken = write(descriptor, content[: room[0]])
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return taken

    monkeypatch.setattr(audit_folder.os, "write", short)
    folder.record(act(1))
    room[0] = 0
    folder.record(act(2))
    room[0] = 10**6
    folder.record(act(3))
    assert said(folder) == ["act 1", "act 2", "act 3"]


def test_ids_are_found_from_an_instant_on_in_a_file_of_any_size(folder, act, clock, now):
    ids = []
    for number in range(2000):  # of about 900 bytes: far more than is read at once
        clock.pass_time(1)
        record = act(number, at=clock.now())
        ids.append(record.audit_id)
        folder.record(record)
    found = folder.ids_since(now + timedelta(seconds=1501))
    assert set(ids[1500:]) <= found
    # A minute is allowed for lines out of order, and a block for where reading begins.
    assert not found & set(ids[:1300])
    assert folder.ids_since(now) == set(ids)


WRITES_MANY = """
import sys
from pathlib import Path
from deployr_serve.adapters.audit_folder import AuditFolder
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.audit import Act, of_operator
clock = SystemClock()
folder = AuditFolder(Path(sys.argv[1]), site="s", environment="E", clock=clock)
for number in range(300):
    folder.record(of_operator(Act.SWITCH, at=clock.now(), by=sys.argv[2] * 500, said=f"{sys.argv[2]} {number}"))
import os
os._exit(9)
"""


def test_many_processes_write_whole_lines_and_one_that_dies_has_lost_none(folder):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES_MANY, str(folder.folder), name]) for name in ("a", "b", "c")
    ]
    assert [writer.wait(60) for writer in writers] == [9, 9, 9]
    lines = said(folder)
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abc" for number in range(300))


# -- the feed


class Server:
    """Takes batches; answers each with what is next in ``answers``, the last one for ever."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.batches = []

    async def send(self, request):
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        bundle = json.loads(request.body)
        said = [entry["resource"]["outcomeDesc"] for entry in bundle["entry"]]
        if isinstance(answer, Exception):
            raise answer
        self.batches.append(said)
        if isinstance(answer, int):
            return Response(status=answer, content_type="text/html", body=b"")
        statuses = [answer.get(each, "201 Created") for each in said]
        entries = [{"response": {"status": status}} for status in statuses]
        body = json.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": entries}).encode()
        return Response(status=200, content_type="application/fhir+json", body=body)


@pytest.fixture
def feed_of(folder, clock):
    def make(*answers):
        server = Server(*answers)
        feed = AuditFeed(folder, base="https://audit.example/fhir", token="t", transport=server, clock=clock)
        return feed, server

    return make


async def test_everything_is_sent_once_in_order_across_days(folder, act, clock, feed_of):
    feed, server = feed_of({})
    for number in (1, 2):
        folder.record(act(number))
        clock.pass_time(6 * 3600)
    assert await feed.send() == 2
    assert await feed.send() == 0
    folder.record(act(3))
    assert await feed.send() == 1
    assert [each for batch in server.batches for each in batch] == ["act 1", "act 2", "act 3"]


async def test_a_batch_holds_a_hundred(folder, act, feed_of):
    feed, server = feed_of({})
    for number in range(250):
        folder.record(act(number))
    assert await feed.send() == 250
    assert [len(batch) for batch in server.batches] == [100, 100, 50]


@pytest.mark.parametrize("trouble", [EmrUnreachable("down"), 503, 401])
async def test_while_the_server_is_down_everything_waits_and_the_operator_is_told(
    folder, act, feed_of, caplog, trouble
):
    feed, server = feed_of(trouble, {})
    folder.record(act(1))
    assert await feed.send() == 0
    assert "alert=audit-feed-down" in caplog.text
    assert await feed.send() == 1
    assert server.batches[-1] == ["act 1"]


async def test_an_event_that_the_server_refuses_is_kept_apart_and_does_not_stop_the_others(
    folder, act, feed_of, caplog
):
    feed, _ = feed_of({"act 2": "422 Unprocessable Entity"})
    for number in (1, 2, 3):
        folder.record(act(number))
    assert await feed.send() == 3
    assert "alert=audit-event-refused status=422" in caplog.text
    [refused] = folder.folder.glob("refused.*.ndjson")
    assert json.loads(refused.read_text())["outcomeDesc"] == "act 2"
    assert await feed.send() == 0


async def test_what_the_server_has_no_time_for_is_sent_again_with_what_came_after_it(folder, act, feed_of):
    feed, server = feed_of({"act 2": "503 Service Unavailable"}, {})
    for number in (1, 2, 3):
        folder.record(act(number))
    assert await feed.send() == 1
    assert await feed.send() == 2
    assert server.batches == [["act 1", "act 2", "act 3"], ["act 2", "act 3"]]


async def test_a_line_that_is_still_being_written_waits(folder, act, feed_of):
    feed, _ = feed_of({})
    folder.record(act(1))
    [(_, file)] = folder.days()
    with file.open("ab") as opened:
        opened.write(b'{"resourceType": "AuditEvent", "outcomeDesc"')
    assert await feed.send() == 1
    with file.open("ab") as opened:
        opened.write(b': "act 2"}\n')
    assert await feed.send() == 1
