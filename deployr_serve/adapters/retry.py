"""What is sent again, how often and after how long: as data, and decided by pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployr_serve.adapters.http import Response, retry_after_s
from deployr_serve.core.errors import EmrBadResponse, EmrTimeout, EmrUnreachable, TryLater

_LEAST_TRY_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """What heals by itself, and how long to give it. Applies to requests that are `Request.repeatable`, and no others.

    ``repeats``: how often at most, after the first time. ``statuses``: answers that are worth asking again for.
    ``errors``: by class, after how many tries in all it is still worth another: an answer that was cut off twice will
    be cut off again. The wait before try n + 1 is drawn from 0 to ``base_s`` * 2 ** (n - 1), at most ``cap_s`` (full
    jitter: those who failed together do not come back together), on top of what the EMR asked for by Retry-After.
    """

    repeats: int = 2
    base_s: float = 0.1
    cap_s: float = 2.0
    statuses: frozenset[int] = frozenset({429, 502, 503, 504})
    errors: Mapping[type[TryLater], int] = field(
        default_factory=lambda: {EmrUnreachable: 2, EmrTimeout: 2, EmrBadResponse: 1}
    )


def wait_before_repeat(
    policy: RetryPolicy, came: Response | TryLater, *, tries: int, left_s: float, draw: float
) -> float | None:
    """Give the seconds to wait before the next try, or None if there is to be none.

    Args:
        policy: what heals.
        came: what the last try gave.
        tries: how many there were, at least 1.
        left_s: until the deadline. A wait that would reach it is not begun: what is known is said now.
        draw: by chance, from 0 to 1.
    """
    if isinstance(came, Response):
        heals = came.status in policy.statuses
        asked = retry_after_s(came.headers)
    else:
        heals = tries <= policy.errors.get(type(came), 0)
        asked = came.retry_after_s
    if not heals or tries > policy.repeats:
        return None
    wait = (asked or 0.0) + draw * min(policy.cap_s, policy.base_s * 2 ** (tries - 1))
    return wait if wait < left_s else None


def time_for_try(left_s: float, *, last: bool) -> float:
    """Give one try's share of the seconds that are left.

    Half of them, so that after a try that hangs there is as much again for the others: of 8 s the first gets 4, the
    second 2, the third what is left. An equal share (2.7 s) would cut off more answers that are only slow, and asking
    an EMR that is slow twice makes it slower. Below a second a cut is worth nothing: then, and for the last, all.
    """
    return left_s if last else min(left_s, max(left_s / 2, _LEAST_TRY_S))
