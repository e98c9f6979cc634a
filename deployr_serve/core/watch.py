"""What the use cases tell of their work while they do it: which step, how it ended. Never about whom.

The core knows no telemetry: it names steps to a `Watch`, and what becomes of that is an adapter's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Protocol

from deployr_core.packet import Abstained, Failed, FetchRecord, InferencePacket, Rejected, Scored


class Step(StrEnum):
    """What may be watched; a name stands in traces and metrics as it is here."""

    INFERENCE = "inference"
    CLAIM = "claim"
    FETCH = "fetch"
    SEARCH = "search"
    VECTORIZE = "vectorize"
    SCORE = "score"
    STORE = "store"
    DELIVER = "deliver"
    RELAY = "relay"
    BATCH_START = "batch-start"
    BATCH_CHUNK = "batch-chunk"
    LABELS = "labels"


class Level(StrEnum):
    """What stands somewhere, and is only worth its latest number."""

    DELIVERIES_PENDING = "deliveries-pending"
    SPOOL_WAITING = "spool-waiting"


class Noted(Protocol):
    """A step under way."""

    def note(self, **about: str) -> None:
        """Say more of it: ``model``, ``channel``, ``outcome``, ``reason`` and the like; codes, never a person's."""


class Watch(Protocol):
    """Is told of steps. It never raises, and what it is told must be sayable anywhere."""

    @property
    def is_on(self) -> bool:
        """True if anybody listens, so that what is only asked for the sake of telling need not be asked."""

    def step(self, step: Step, **about: str) -> AbstractContextManager[Noted]:
        """Watch what is done inside; an error that leaves it is told by its reason or its class, never its text."""

    def fetched(self, records: Sequence[FetchRecord]) -> None:
        """Tell of searches that have ended, within the step that is under way."""

    def level(self, level: Level, value: float) -> None:
        """Tell how much there is of something now."""

    def joined(self, traceparent: str | None) -> AbstractContextManager[None]:
        """Take what is done inside for a part of the caller's trace, where it names one that may be taken on."""

    def traceparent(self) -> str | None:
        """Name the step under way to whom we call; None where there is none to name."""


class _NothingNoted:
    def note(self, **about: str) -> None:
        """Let it go."""


class NotWatched:
    """The default: nobody listens, and nothing is spent on it."""

    is_on = False

    def __init__(self) -> None:
        self._nothing: AbstractContextManager[Noted] = nullcontext(_NothingNoted())

    def step(self, step: Step, **about: str) -> AbstractContextManager[Noted]:  # noqa: ARG002 nobody listens
        """Watch nothing."""
        return self._nothing

    def fetched(self, records: Sequence[FetchRecord]) -> None:
        """Let it go."""

    def level(self, level: Level, value: float) -> None:
        """Let it go."""

    def joined(self, traceparent: str | None) -> AbstractContextManager[None]:  # noqa: ARG002 there is nothing to join
        """Join nothing."""
        return nullcontext()

    def traceparent(self) -> str | None:
        """Name nothing."""
        return None


NOT_WATCHED = NotWatched()


def ending_of(packet: InferencePacket, *, replayed: bool) -> dict[str, str]:
    """Say how an inference ended, by codes alone."""
    said = {"model": packet.model.model_id, "packet_id": packet.packet_id, "replayed": str(int(replayed))}
    match packet.outcome:
        case Scored(decision=decision):
            # Not what was decided, nor why: in a trial that would tell the arms of those who look.
            mode = {} if decision is None else {"mode": decision.mode.value}
            return said | {"outcome": "scored"} | mode
        case Abstained(reason=reason):
            return said | {"outcome": "abstained", "reason": reason}
        case Rejected(reason=reason):
            return said | {"outcome": "rejected", "reason": reason}
        case Failed(reason=reason):
            return said | {"outcome": "failed", "reason": reason}
        case _:
            return said | {"outcome": "unfinished"}
