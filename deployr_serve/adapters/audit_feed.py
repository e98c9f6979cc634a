"""Sends what stands in the audit folder on to a FHIR server, in batches, in order; the folder is the spool."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from deployr_serve.adapters.audit_folder import AuditFolder, read_lines
from deployr_serve.adapters.http import Request, Transport
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Budget, Clock, Lane

_log = logging.getLogger(__name__)
_BATCH = 100
_WITHIN_S = 20.0


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where everything was taken: a file's name, and the bytes of it."""

    file: str = ""
    offset: int = 0


class AuditFeed:
    """An IHE Audit Record Repository's feed: a ``batch`` of AuditEvents is posted to the server's base.

    How far it has come stands beside the files, per machine; one process of a machine sends at a time. A batch whose
    answer is lost is sent again, so that the server may hold an event twice, by its ``audit-id``. An event that the
    server refuses for what it is stays in a file of its own, with an alert, and the others go on.

    Source: IHE ITI-20, the FHIR feed option; FHIR R4 http.html#transaction.
    """

    def __init__(
        self, folder: AuditFolder, *, base: str, token: str | None, transport: Transport, clock: Clock
    ) -> None:
        self._folder = folder
        self._base = base
        self._token = token
        self._transport = transport
        self._clock = clock
        self._mark = folder.folder / f"sent.{folder.machine}.json"
        self._refused = folder.folder / f"refused.{folder.machine}.ndjson"

    async def send(self) -> int:
        """Send what was not sent yet, for `_WITHIN_S` at the most; give how many events the server took.

        A server that is down, or refuses us, is an alert in the log; everything stays where it is.
        """
        taken, until = 0, self._clock.monotonic() + _WITHIN_S
        if not self._folder.folder.is_dir():
            return 0
        with self._alone() as is_ours:
            while is_ours and self._clock.monotonic() < until:
                place = self._place()
                file, events, ends = self._next(place)
                if not events:
                    break
                done, whole = await self._post(events, until=until)
                if done:
                    self._keep(_Place(file=file, offset=ends[done - 1]))
                taken += done
                if not whole:
                    break
        return taken

    async def _post(self, events: list[dict[str, object]], *, until: float) -> tuple[int, bool]:
        """Give how many of the events, from the first on, need not be sent again; false if the server should rest."""
        entries = [{"resource": each, "request": {"method": "POST", "url": "AuditEvent"}} for each in events]
        authorization = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        request = Request(
            method="POST",
            url=self._base,
            headers={"Content-Type": "application/fhir+json", "Accept": "application/fhir+json", **authorization},
            body=msgspec.json.encode({"resourceType": "Bundle", "type": "batch", "entry": entries}),
            writes=True,
            budget=Budget(deadline=until, correlation_id="audit", lane=Lane.BATCH),
        )
        try:
            answer = await self._transport.send(request)
        except ServeError as error:
            _log.error("alert=audit-feed-down reason=%s", error.reason)
            return 0, False
        statuses = _statuses(answer.body) if answer.status == 200 else []
        if len(statuses) != len(events):
            _log.error("alert=audit-feed-down status=%d", answer.status)
            return 0, False
        for number, (event, status) in enumerate(zip(events, statuses, strict=True)):
            if 200 <= status < 300:
                continue
            if status in {401, 403, 404, 429} or not 400 <= status < 500:
                _log.error("alert=audit-feed-down status=%d", status)
                return number, False
            _log.error("alert=audit-event-refused status=%d", status)
            _append(self._refused, event)
        return len(events), True

    def _next(self, place: _Place) -> tuple[str, list[dict[str, object]], list[int]]:
        ours = f".{self._folder.machine}.ndjson"
        for _, file in self._folder.days():
            if file.name >= place.file and file.name.endswith(ours):
                offset = place.offset if file.name == place.file else 0
                events, ends = read_lines(file, offset=offset, limit=_BATCH)
                if events:
                    return file.name, events, ends
        return place.file, [], []

    def _place(self) -> _Place:
        try:
            return msgspec.json.decode(self._mark.read_bytes(), type=_Place)
        except FileNotFoundError:
            return _Place()

    def _keep(self, place: _Place) -> None:
        part = self._mark.with_name(f".{self._mark.name}.part")
        part.write_bytes(msgspec.json.encode(place))
        part.replace(self._mark)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Give whether no other process of this machine is sending."""
        descriptor = os.open(self._mark.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)


def _statuses(body: bytes) -> list[int]:
    """Give the status of each entry of a batch's answer; nothing if it is none."""
    try:
        return [int(str(entry["response"]["status"])[:3]) for entry in json.loads(body)["entry"]]
    except (ValueError, KeyError, TypeError):
        return []


def _append(file: Path, event: dict[str, object]) -> None:
    with file.open("ab") as opened:
        opened.write(msgspec.json.encode(event) + b"\n")
