"""Queues in a file: each message to one taker at a time, until it is deleted."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from deployr_serve.local_host.queue_file import QueueFile, QueueUnavailable

MINUTE = timedelta(minutes=1)


class Now:
    def __init__(self):
        self.instant = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)

    def __call__(self):
        return self.instant


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def queues(tmp_path, now):
    return QueueFile(tmp_path / "queue.sqlite", clock=now)


def test_messages_are_taken_in_the_order_in_which_they_came(queues, now):
    for body in (b"a", b"b"):
        queues.put("chunks", body)
        now.instant += timedelta(seconds=1)
    assert [queues.take("chunks", hidden=MINUTE).body for _ in range(2)] == [b"a", b"b"]


def test_each_queue_has_its_own(queues):
    queues.put("chunks", b"a")
    assert queues.take("others", hidden=MINUTE) is None


def test_what_was_taken_is_hidden_until_its_time_is_over_and_counted(queues, now):
    queues.put("chunks", b"a")
    first = queues.take("chunks", hidden=MINUTE)
    now.instant += MINUTE - timedelta(microseconds=1000)
    assert queues.take("chunks", hidden=MINUTE) is None
    now.instant += timedelta(microseconds=1000)
    again = queues.take("chunks", hidden=MINUTE)
    assert (first.dequeue_count, again.dequeue_count, again.message_id) == (1, 2, first.message_id)


def test_only_who_took_it_last_can_delete_it(queues, now):
    queues.put("chunks", b"a")
    slow = queues.take("chunks", hidden=MINUTE)
    now.instant += MINUTE
    quick = queues.take("chunks", hidden=MINUTE)
    queues.delete(slow)
    assert queues.hide(slow, timedelta(0)) is None
    now.instant += MINUTE
    assert queues.hide(quick, timedelta(0)) is not None
    last = queues.take("chunks", hidden=MINUTE)
    queues.delete(last)
    now.instant += MINUTE
    assert queues.take("chunks", hidden=MINUTE) is None


def test_a_hold_can_be_renewed(queues, now):
    queues.put("chunks", b"a")
    taken = queues.take("chunks", hidden=MINUTE)
    now.instant += MINUTE / 2
    assert queues.hide(taken, MINUTE) is not None
    now.instant += MINUTE / 2
    assert queues.take("chunks", hidden=MINUTE) is None


def test_messages_outlive_who_put_them(tmp_path, now):
    first = QueueFile(tmp_path / "queue.sqlite", clock=now)
    first.put("chunks", b"a")
    second = QueueFile(tmp_path / "queue.sqlite", clock=now)
    assert second.take("chunks", hidden=MINUTE).body == b"a"


def test_many_takers_on_one_file_never_get_the_same(tmp_path, now):
    several = [QueueFile(tmp_path / "queue.sqlite", clock=now) for _ in range(4)]
    for n in range(40):
        several[0].put("chunks", str(n).encode())
    taken = []

    def take_all(queues):
        while (message := queues.take("chunks", hidden=MINUTE)) is not None:
            taken.append(message.body)

    threads = [threading.Thread(target=take_all, args=(queues,)) for queues in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 40


def test_a_file_that_cannot_be_used_is_said(tmp_path, now):
    with pytest.raises(QueueUnavailable):
        QueueFile(tmp_path / "missing" / "queue.sqlite", clock=now).put("chunks", b"a")
    (tmp_path / "text").write_text("no database at all, and long enough to be read as one" * 40)
    with pytest.raises(QueueUnavailable):
        QueueFile(tmp_path / "text", clock=now).put("chunks", b"a")


def test_no_body_shows(queues):
    queues.put("chunks", b"canary")
    assert "canary" not in repr(queues.take("chunks", hidden=MINUTE))
