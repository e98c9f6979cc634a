"""What a timer remembers between runs and restarts: when it ran, when it is due."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from deployr_serve.local_host.errors import HostSetupError

logger = logging.getLogger(__name__)

NEVER = "0001-01-01T00:00:00"
"""How .NET writes the instant of a timer that never ran (``default(DateTime)``)."""

_NEVER_DUE = "9999-12-31T23:59:59.9999999"

LATE_AFTER = timedelta(seconds=1)
"""A run that starts this much after its slot is past due; less is the jitter of a busy event loop."""

NextOccurrence = Callable[[datetime], datetime | None]
"""The first instant of a schedule strictly after the one given; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class ScheduleStatus:
    """One timer's place in its schedule; instants are aware.

    Attributes:
        last: when it last started on schedule; None if never.
        next: when it is due; None where its schedule has no further instant.
        last_updated: the instant that ``next`` was derived from where it never ran.

    Source: azure-webjobs-sdk-extensions, ``ScheduleStatus``.
    """

    last: datetime | None
    next: datetime | None
    last_updated: datetime

    def to_json(self) -> dict[str, str]:
        """The three instants in ISO 8601 under the real host's names."""
        return {
            "Last": self.last.astimezone(UTC).isoformat() if self.last else NEVER,
            "Next": self.next.astimezone(UTC).isoformat() if self.next else _NEVER_DUE,
            "LastUpdated": self.last_updated.astimezone(UTC).isoformat(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, str]) -> "ScheduleStatus":
        """Read back what :meth:`to_json` wrote.

        Raises:
            KeyError: a name is missing.
            ValueError: an instant is not aware ISO 8601.
        """
        return cls(
            last=None if content["Last"] == NEVER else _instant(content["Last"]),
            next=None if content["Next"] == _NEVER_DUE else _instant(content["Next"]),
            last_updated=_instant(content["LastUpdated"]),
        )


def status_at_start(stored: ScheduleStatus | None, *, now: datetime, next_occurrence: NextOccurrence) -> ScheduleStatus:
    """What a starting host takes as its timer's status; it missed a slot where ``next`` is before ``now``.

    A schedule that was changed since is not past due: its slots count from now on.

    Source: azure-webjobs-sdk-extensions, ``ScheduleMonitor.CheckPastDueAsync``.
    """
    if stored is None:
        return ScheduleStatus(last=None, next=next_occurrence(now), last_updated=now)
    derived_from = stored.last or stored.last_updated
    expected = next_occurrence(derived_from)
    if stored.next == expected:
        return stored
    if expected is not None and expected < now:
        return ScheduleStatus(last=None, next=next_occurrence(now), last_updated=now)
    return ScheduleStatus(last=None, next=expected, last_updated=derived_from)


def status_after_run(
    before: ScheduleStatus, *, started: datetime, on_schedule: bool, next_occurrence: NextOccurrence
) -> ScheduleStatus:
    """The status once a run that ``started`` then is over.

    A run on schedule that a clock let start a little early counts as started at its slot; else the same slot
    would come again.

    Source: azure-webjobs-sdk-extensions, ``TimerListener.InvokeJobFunction``.
    """
    counted = started
    if on_schedule and before.next is not None and before.next > started:
        counted = before.next
    return ScheduleStatus(last=counted, next=next_occurrence(counted), last_updated=counted)


class StatusStore(Protocol):
    """Where statuses outlive the host."""

    def read(self, function: str) -> ScheduleStatus | None:
        """The stored status of a function; None where there is none."""

    def write(self, function: str, status: ScheduleStatus) -> None:
        """Replace the stored status of a function."""


class NoStatusStore:
    """Remembers nothing: what a timer without ``use_monitor`` has."""

    def read(self, function: str) -> ScheduleStatus | None:  # noqa: ARG002 - the protocol's
        """None, always."""
        return None

    def write(self, function: str, status: ScheduleStatus) -> None:
        """Drop it."""


class FileStatusStore:
    """One small JSON file per function, replaced as a whole.

    Source: azure-webjobs-sdk-extensions, ``FileSystemScheduleMonitor``.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            HostSetupError: it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HostSetupError(
                f"state folder {folder}: expected a writable folder, got {type(error).__name__}"
            ) from error
        self._folder = folder

    def read(self, function: str) -> ScheduleStatus | None:
        """The stored status; None where there is none or its file is damaged."""
        try:
            return ScheduleStatus.from_json(json.loads(self._path(function).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning(
                "function=%s schedule status cannot be read and is started afresh: %s",
                function,
                type(error).__name__,
            )
            return None

    def write(self, function: str, status: ScheduleStatus) -> None:
        """Replace the file atomically.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._path(function)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(status.to_json()), encoding="utf-8")
        partial.replace(path)

    def _path(self, function: str) -> Path:
        return self._folder / f"{function}.status.json"


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("expected an instant with its UTC offset")
    return instant
