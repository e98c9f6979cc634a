"""A circuit breaker: a server that does not answer is left alone for a while, and those who ask are told at once.

The states are values, and every step is a pure function of state, time and outcome. What is counted is whether the
server is there, never what it says: a patient whose record always gives status 500 must not shut out the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Outcome(Enum):
    """What one call tells of the server. ``UNKNOWN``: nothing, such as when the caller went away."""

    ANSWERED = auto()
    UNAVAILABLE = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerPolicy:
    """When to open, and for how long.

    It opens at ``in_a_row`` failures without an answer between them, or when at least the share ``share`` of at least
    ``least_calls`` calls failed within ``window_s`` seconds. One inference sends 6 searches at once and each up to 3
    times: 20 in a row are more than one inference can fail, so that a blip that its repeats get over opens nothing.
    """

    in_a_row: int = 20
    share: float = 0.5
    least_calls: int = 40
    window_s: float = 30.0
    open_s: float = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """Every call goes out. The counts are of the window that ends at ``window_ends``."""

    in_a_row: int = 0
    calls: int = 0
    failures: int = 0
    window_ends: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """No call goes out before ``until``."""

    until: float


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfOpen:
    """One call, the probe, is out. One that is not heard of by ``probe_until`` is given up."""

    probe_until: float


Circuit = Closed | Open | HalfOpen


def wait_s(circuit: Circuit, now: float) -> float:
    """Give how many seconds nothing may be sent; 0 if a call may go out now."""
    match circuit:
        case Closed():
            return 0.0
        case Open(until=until) | HalfOpen(probe_until=until):
            return max(until - now, 0.0)


def sent(circuit: Circuit, now: float, policy: BreakerPolicy) -> Circuit:
    """Give the state once a call, for which `wait_s` gave 0, is on its way."""
    return circuit if isinstance(circuit, Closed) else HalfOpen(probe_until=now + policy.open_s)


def ended(circuit: Circuit, outcome: Outcome, now: float, policy: BreakerPolicy, *, probe: bool) -> Circuit:
    """Give the state once a call has ended.

    ``probe``: its sending made the circuit half-open. A call from before the circuit opened changes nothing any more.
    """
    match circuit:
        case Closed() if not probe:
            return _counted(circuit, outcome, now, policy)
        case HalfOpen() if probe and outcome is Outcome.ANSWERED:
            return Closed()
        case HalfOpen() if probe:
            return Open(until=now + policy.open_s if outcome is Outcome.UNAVAILABLE else now)
        case _:
            return circuit


def _counted(circuit: Closed, outcome: Outcome, now: float, policy: BreakerPolicy) -> Circuit:
    if outcome is Outcome.UNKNOWN:
        return circuit
    if now >= circuit.window_ends:
        circuit = Closed(in_a_row=circuit.in_a_row, window_ends=now + policy.window_s)
    failed = outcome is Outcome.UNAVAILABLE
    circuit = Closed(
        in_a_row=circuit.in_a_row + 1 if failed else 0,
        calls=circuit.calls + 1,
        failures=circuit.failures + failed,
        window_ends=circuit.window_ends,
    )
    too_many = circuit.calls >= policy.least_calls and circuit.failures >= policy.share * circuit.calls
    return Open(until=now + policy.open_s) if circuit.in_a_row >= policy.in_a_row or too_many else circuit
