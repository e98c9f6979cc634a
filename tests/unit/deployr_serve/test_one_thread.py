"""One thread: in order, whatever fails, and gone with whoever held it."""

from __future__ import annotations

import threading

from deployr_serve.adapters.one_thread import OneThread


def test_things_are_done_one_after_the_other_on_one_thread_that_is_not_this_one():
    thread, done, ended = OneThread("one"), [], threading.Event()
    for number in range(100):
        thread.do(lambda number=number: done.append((number, threading.current_thread())))
    thread.do(ended.set)
    assert ended.wait(60)
    assert [number for number, _ in done] == list(range(100))
    [worker] = {by for _, by in done}
    assert worker is not threading.current_thread()
    assert worker.daemon


def test_what_fails_is_logged_by_its_class_alone_and_holds_up_nothing(caplog):
    def fail():
        raise ValueError("CANARY")

    thread, ended = OneThread("one"), threading.Event()
    thread.do(fail)
    thread.do(ended.set)
    assert ended.wait(60)
    assert "thread=one error=ValueError" in caplog.text
    assert "CANARY" not in caplog.text


def test_the_thread_ends_when_nobody_holds_it_any_more():
    thread, found, ended = OneThread("one"), [], threading.Event()
    thread.do(lambda: found.append(threading.current_thread()))
    thread.do(ended.set)
    assert ended.wait(60)
    del thread
    found[0].join(60)
    assert not found[0].is_alive()


def test_two_who_begin_at_once_have_one_thread():
    for _ in range(50):
        thread, found, here = OneThread("one"), set(), threading.Barrier(4)

        def give(thread=thread, found=found, here=here):
            done = threading.Event()
            here.wait(60)
            thread.do(lambda: found.add(threading.get_ident()))
            thread.do(done.set)
            assert done.wait(60)

        givers = [threading.Thread(target=give) for _ in range(4)]
        for giver in givers:
            giver.start()
        for giver in givers:
            giver.join()
        assert len(found) == 1


def test_no_thread_begins_before_there_is_something_to_do():
    before = threading.active_count()
    OneThread("one")
    assert threading.active_count() == before
