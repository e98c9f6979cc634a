"""The EMR that outlives its clients, and can be told to kill one of them once it has taken its write.

`python -m tests.crash.emr CHART` serves a mock EMR over a folder of NDJSON; beside its own routes:
``/crash/fresh`` empties what was written to it, ``/crash/arm`` names a process to kill after the nth write to a route,
before that write is answered, and ``/crash/state`` gives all that was written.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response

from mock_emr.clock import EmrClock
from mock_emr.dates import instant_of
from mock_emr.faults import rules_in
from mock_emr.hosting import Host, bound_socket, url_of
from mock_emr.loading import load_folder
from mock_emr.serve import create_app, real_now
from tests.crash import site

WRITES = {
    "HANDLEEXTERNALMODELSCORES": "score-column",
    "FlowsheetValue": "flowsheet",
    "Message": "in-basket",
    "RiskAssessment": "risk-assessment",
}
"""By the last part of the path that is posted to."""


class LastingEmr:
    """The app; see the module."""

    def __init__(self, chart: Path, url: str) -> None:
        self._chart = load_folder(chart)
        self._url = url
        self._fresh()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path.startswith("/crash/"):
            query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
            await self._told(path.removeprefix("/crash/"), query)(scope, receive, send)
            return
        held: list[Any] = []

        async def keep(message: Any) -> None:
            held.append(message)

        await self._app(scope, receive, keep)
        route = WRITES.get(path.rpartition("/")[2]) if scope.get("method") == "POST" else None
        if route is not None and held[0]["status"] < 300:
            self._taken.append(route)
            self._kill_if_armed(route)
        for message in held:
            await send(message)

    def _fresh(self) -> None:
        self._app: Starlette = create_app(
            self._chart, clock=EmrClock(real_now=real_now, now=site.NOW), open_access=True, base_url=self._url
        )
        self._taken: list[str] = []
        self._armed: tuple[int, str, int] | None = None

    def _kill_if_armed(self, route: str) -> None:
        if self._armed is None or self._armed[1] != route:
            return
        pid, _, nth = self._armed
        self._armed = (pid, route, nth - 1) if nth > 1 else None
        if self._armed is None:
            os.kill(pid, signal.SIGKILL)

    def _told(self, what: str, query: dict[str, str]) -> Response:
        match what:
            case "fresh":
                self._fresh()
            case "arm":
                self._armed = (int(query["pid"]), query["route"], int(query["nth"]))
            case "clock":
                self._app.state.emr.clock.put(instant_of(query["now"]))
            case "faults":
                self._app.state.emr.faults.put(rules_in(query["rules"].encode()))
        return Response(msgspec.json.encode(self._state()), media_type="application/json")

    def _state(self) -> dict[str, Any]:
        emr = self._app.state.emr
        new = [
            [entry.call.write.job_id, entry.call.write.is_new]
            for entry in emr.journal.since(0, limit=100_000)
            if entry.call.write is not None
        ]
        return {
            "taken": self._taken,
            "jobs": new,
            "column": [[cell.csn, row.job_id, row.score] for cell in emr.scores.cells() for row in cell.rows],
            "flowsheet": [[one.patient_id, one.taken_at.isoformat(), one.value] for one in emr.written.flowsheet],
            "messages": [[one.patient_id, one.lines] for one in emr.written.messages],
            "resources": [[one["resourceType"], one["identifier"][0]["value"]] for one in emr.written.resources()],
        }


def main(chart: Path) -> None:
    """Serve until killed."""
    sock = bound_socket()
    url = url_of(sock)

    def say() -> None:
        sys.stdout.write(f"Ready {url}\n")
        sys.stdout.flush()

    asyncio.run(Host(LastingEmr(chart, url), on_ready=say).serve(sockets=[sock]))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
