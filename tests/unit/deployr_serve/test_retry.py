"""What is sent again and after how long, decided without a network or a clock."""

from __future__ import annotations

import pytest

from deployr_serve.adapters.http import Response
from deployr_serve.adapters.retry import RetryPolicy, time_for_try, wait_before_repeat
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrThrottled,
    EmrTimeout,
    EmrTooLarge,
    EmrUnreachable,
)

POLICY = RetryPolicy(repeats=2, base_s=1.0, cap_s=1.5)


def answer(status, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, content_type="", body=b"", headers=named)


def wait(came, *, tries=1, left_s=100.0, draw=1.0, policy=POLICY):
    return wait_before_repeat(policy, came, tries=tries, left_s=left_s, draw=draw)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_answer_that_may_heal_is_asked_for_twice_more(status):
    assert [wait(answer(status), tries=tries) is not None for tries in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize("status", [200, 201, 301, 400, 401, 403, 404, 409, 410, 412, 422, 500, 501, 505])
def test_any_other_answer_is_final(status):
    assert wait(answer(status)) is None


@pytest.mark.parametrize(
    ("error", "repeats"),
    [(EmrUnreachable, 2), (EmrTimeout, 2), (EmrBadResponse, 1), (EmrTooLarge, 0), (EmrThrottled, 0)],
)
def test_an_error_is_repeated_as_often_as_it_may_heal(error, repeats):
    assert sum(wait(error("x"), tries=tries) is not None for tries in (1, 2, 3)) == repeats


def test_the_wait_is_drawn_between_nothing_and_a_bound_that_doubles_up_to_its_cap():
    assert [wait(answer(503), draw=draw) for draw in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]
    assert [wait(answer(503), tries=2, draw=draw) for draw in (0.0, 0.5, 1.0)] == [0.0, 0.75, 1.5]  # not up to 2


def test_what_the_emr_asks_for_is_waited_for_and_then_the_draw():
    assert wait(answer(429, retry_after="2"), draw=0.25) == 2.25
    error = EmrUnreachable("x")
    error.retry_after_s = 3.0
    assert wait(error, draw=0.25) == 3.25


@pytest.mark.parametrize("nonsense", ["-1", "9999999", "abc"])
def test_what_the_emr_cannot_mean_leaves_our_own_wait(nonsense):
    assert wait(answer(503, retry_after=nonsense), draw=0.25) == 0.25


def test_a_wait_that_would_reach_the_deadline_is_not_begun():
    assert wait(answer(429, retry_after="2"), draw=0.0, left_s=2.1) == 2.0
    assert wait(answer(429, retry_after="2"), draw=0.0, left_s=2.0) is None
    assert wait(answer(503), draw=0.0, left_s=0.0) is None
    assert wait(answer(503), draw=0.0, left_s=-1.0) is None


def test_a_try_gets_half_of_what_is_left_and_the_last_one_all():
    assert time_for_try(8.0, last=False) == 4.0
    assert time_for_try(4.0, last=False) == 2.0
    assert time_for_try(2.0, last=True) == 2.0


def test_a_try_gets_a_second_at_least_where_there_is_one():
    assert time_for_try(1.5, last=False) == 1.0
    assert time_for_try(0.4, last=False) == 0.4
