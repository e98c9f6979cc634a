"""The circuit breaker's steps, one by one, at times of our choosing."""

from __future__ import annotations

import pytest

from deployr_serve.adapters.breaker import BreakerPolicy, Closed, HalfOpen, Open, Outcome, ended, sent, wait_s

POLICY = BreakerPolicy(in_a_row=3, share=0.5, least_calls=10, window_s=30.0, open_s=5.0)
FAILED, ANSWERED, UNKNOWN = Outcome.UNAVAILABLE, Outcome.ANSWERED, Outcome.UNKNOWN


def after(*outcomes, circuit=None, now=100.0):
    """Give the state after these calls, one after another, all of them at this time."""
    circuit = circuit or Closed()
    for outcome in outcomes:
        circuit = ended(circuit, outcome, now, POLICY, probe=False)
    return circuit


def test_it_opens_at_the_last_of_so_many_failures_in_a_row_and_not_before():
    assert isinstance(after(FAILED, FAILED), Closed)
    assert after(FAILED, FAILED, FAILED) == Open(until=105.0)


def test_an_answer_between_them_starts_the_row_again():
    assert isinstance(after(FAILED, FAILED, ANSWERED, FAILED, FAILED), Closed)


def test_failures_in_a_row_may_be_far_apart():
    circuit = after(FAILED, now=100.0)
    circuit = after(FAILED, circuit=circuit, now=200.0)
    assert after(FAILED, circuit=circuit, now=300.0) == Open(until=305.0)


def test_it_opens_when_half_of_enough_calls_fail_though_never_in_a_row():
    mixed = (ANSWERED, FAILED) * 4
    assert isinstance(after(*mixed, ANSWERED), Closed)
    assert after(*mixed, ANSWERED, FAILED) == Open(until=105.0)  # 5 of 10
    assert isinstance(after(*mixed, ANSWERED, ANSWERED), Closed)  # 4 of 10


def test_the_window_includes_its_start_and_excludes_its_end():
    mixed = after(*(ANSWERED, FAILED) * 4, ANSWERED, now=100.0)
    assert isinstance(after(FAILED, circuit=mixed, now=129.9), Open)
    assert after(FAILED, circuit=mixed, now=130.0) == Closed(in_a_row=1, calls=1, failures=1, window_ends=160.0)


def test_what_tells_nothing_counts_for_nothing():
    assert after(UNKNOWN) == Closed()
    assert after(FAILED, FAILED, UNKNOWN) == after(FAILED, FAILED)


def test_nothing_goes_out_while_it_is_open_and_something_does_from_its_end_on():
    assert wait_s(Closed(), 100.0) == 0
    assert wait_s(Open(until=105.0), 100.0) == 5
    assert wait_s(Open(until=105.0), 105.0) == 0
    assert wait_s(Open(until=105.0), 999.0) == 0


def test_the_first_call_after_it_is_the_only_one_until_it_is_heard_of():
    probing = sent(Open(until=105.0), 106.0, POLICY)
    assert probing == HalfOpen(probe_until=111.0)
    assert wait_s(probing, 107.0) == 4


def test_a_probe_that_is_never_heard_of_does_not_block_for_ever():
    probing = HalfOpen(probe_until=111.0)
    assert wait_s(probing, 111.0) == 0
    assert sent(probing, 111.0, POLICY) == HalfOpen(probe_until=116.0)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(ANSWERED, Closed()), (FAILED, Open(until=112.0)), (UNKNOWN, Open(until=107.0))],
    ids=["answered", "failed", "the caller went away"],
)
def test_the_probe_decides(outcome, expected):
    assert ended(HalfOpen(probe_until=111.0), outcome, 107.0, POLICY, probe=True) == expected


@pytest.mark.parametrize("circuit", [Open(until=105.0), HalfOpen(probe_until=111.0)], ids=["open", "half open"])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_call_from_before_it_opened_changes_nothing(circuit, outcome):
    assert ended(circuit, outcome, 104.0, POLICY, probe=False) == circuit


def test_a_late_probe_does_not_disturb_a_circuit_that_closed_meanwhile():
    assert ended(Closed(in_a_row=2), FAILED, 120.0, POLICY, probe=True) == Closed(in_a_row=2)


def test_sending_leaves_a_closed_circuit_as_it_is():
    circuit = Closed(in_a_row=2, calls=5, failures=2, window_ends=130.0)
    assert sent(circuit, 100.0, POLICY) is circuit


def test_by_default_one_inference_cannot_open_it_with_all_its_repeats():
    policy = BreakerPolicy()
    circuit = Closed()
    for _ in range(6 * 3):  # 6 searches, each sent 3 times
        circuit = ended(circuit, FAILED, 100.0, policy, probe=False)
    assert isinstance(circuit, Closed)
