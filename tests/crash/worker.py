"""A worker whose life is scripted: forked from a warmed process, it builds the real app and works until it is killed.

`python -m tests.crash.worker` reads jobs as JSON lines, forks a process for each worker of a job, and says how they
ended.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import azure.functions as func
from azure.functions.queue import QueueMessage

from tests.crash import gates, mutants, site

QUEUE = "deployr-chunks"
HIDDEN = timedelta(minutes=5)
_LONGEST_S, _TICK_S = 60.0, 0.001


def serve() -> None:
    """Fork workers until there are no more jobs."""
    _warm()
    asleep = []
    for line in sys.stdin:
        job = json.loads(line)
        match job["do"]:
            case "run":
                pids = [_fork(worker) for worker in job["workers"]]
                said = _waited(pids, [worker["killed_after_s"] for worker in job["workers"]])
            case "put to sleep":
                pid = _fork(job["workers"][0])
                _, status = os.waitpid(pid, os.WUNTRACED)
                if os.WIFSTOPPED(status):
                    asleep.append(pid)
                said = ["asleep" if os.WIFSTOPPED(status) else "done"]
            case _:
                for pid in asleep:
                    os.kill(pid, signal.SIGCONT)
                said = _waited(asleep, [None] * len(asleep))
                asleep.clear()
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def _warm() -> None:
    """Load what the app loads, and nothing that starts a thread: a fork has only the one that forked."""
    import aiohttp  # noqa: F401
    import treelite  # noqa: F401

    import deployr_serve.adapters.cosmos_store
    import deployr_serve.batch_bootstrap
    import deployr_serve.blueprint
    import deployr_serve.blueprint_batch
    import deployr_serve.blueprint_bpa
    import deployr_serve.blueprint_cds
    import deployr_serve.blueprint_pages  # noqa: F401
    import label_extractors.blueprint  # noqa: F401

    gc.collect()
    gc.freeze()


def _waited(pids: list[int], kills_after_s: list[float | None]) -> list[str]:
    """Give how workers ended: ``done``, ``killed``, ``failed`` or ``hung``; some are killed after so many seconds."""
    began = time.monotonic()
    ended: dict[int, str] = {}
    while len(ended) < len(pids):
        passed_s = time.monotonic() - began
        for pid, after_s in zip(pids, kills_after_s, strict=True):
            if pid in ended:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[pid] = _how(status)
            elif after_s is not None and passed_s > after_s:
                os.kill(pid, signal.SIGKILL)
                ended[pid] = _how(os.waitpid(pid, 0)[1])
            elif passed_s > _LONGEST_S:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                ended[pid] = "hung"
        time.sleep(_TICK_S)
    return [ended[pid] for pid in pids]


def _how(status: int) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return "done" if os.waitstatus_to_exitcode(status) == 0 else "failed"


def _fork(worker: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    folder = Path(worker["folder"])
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        asyncio.run(_work(worker, folder))
        code = 0
    except BaseException:  # noqa: BLE001 said in the log, for the parent to show
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


async def _work(worker: Mapping[str, Any], folder: Path) -> None:
    os.environ.update(worker["settings"])
    emr = worker["settings"]["DEPLOYR_EMR_VENDOR_BASE"]
    import function_app

    end = gates.End(**worker["end"]) if worker.get("end") else None
    kept = gates.Gates(end, log=folder / "ends")
    mutants.plant(worker.get("mutant"), function_app.application)
    functions = {one.get_function_name(): one.get_user_function() for one in function_app.app.get_functions()}
    gates.put_up([function_app.application, functions], kept)
    if worker.get("emr_kills_at") is not None:
        _arm(emr, *worker["emr_kills_at"])
    asked = _Asked(function_app.application, functions, folder, emr=emr)
    for ops in worker["rounds"]:
        await asyncio.gather(*(asked.run(*op) for op in ops))
    await gates.settle()
    await function_app.application.aclose()
    (folder / "passed").write_text(json.dumps(kept.passed))


def _arm(emr: str, route: str, nth: int) -> None:
    urlopen(f"{emr}/crash/arm?pid={os.getpid()}&route={route}&nth={nth}", timeout=10).close()


class _Asked:
    """Does what a host does: calls the app's functions, one call at a time for each line of the script."""

    def __init__(self, application: Any, functions: Mapping[str, Any], folder: Path, *, emr: str) -> None:
        self._application = application
        self._functions = functions
        self._folder = folder
        self._emr = emr

    async def run(self, op: str, *arguments: Any) -> None:
        """Do one thing; a timer or a message that fails is the host's to try again."""
        match op:
            case "json" | "bpa" | "cds":
                await self._ask(op, *arguments)
            case "pass":
                self._put_clock(self._now() + timedelta(seconds=arguments[0]))
            case "sleep until":
                self._put_clock(max(self._now(), site.NOW + timedelta(seconds=arguments[0])))
            case "queue":
                await self._queue()
            case timer:
                await _attempt(self._functions[timer](None))

    def _now(self) -> datetime:
        return self._application.services.clock.now()  # type: ignore[no-any-return]

    def _put_clock(self, instant: datetime) -> None:
        site.put_clock(self._folder / "clock", instant, emr=self._emr)

    async def _ask(self, channel: str, patient_id: str, minutes: int = 0) -> None:
        at = site.NOW + timedelta(minutes=minutes)
        match channel:
            case "json":
                name, (url, content_type, body) = "infer", site.json_ask(patient_id, at)
                params = {"model": site.MODEL}
            case "bpa":
                name, (url, content_type, body) = "bpa", site.bpa_ask(patient_id, at)
                params = {"model_or_group": site.MODEL}
            case _:
                name, (url, content_type, body) = (
                    "cds_service",
                    site.cds_ask(patient_id, fhir_base=self._application.cds.fhir_base),
                )
                params = {"id": url.rpartition("/")[2]}
        headers = {"Content-Type": content_type}
        answer = await self._functions[name](
            func.HttpRequest("POST", url, headers=headers, route_params=params, body=body)
        )
        said = {
            "asked": [channel, patient_id, minutes],
            "status": answer.status_code,
            "body": answer.get_body().decode(),
            "packet": answer.headers.get("X-Packet-Id"),
        }
        # From here on the caller has its answer.
        gates.append(self._folder / "answers", json.dumps(said))

    async def _queue(self) -> None:
        queues = self._application.batches.queue._queues
        while (taken := queues.take(QUEUE, hidden=HIDDEN)) is not None:
            message = QueueMessage(id=taken.message_id, body=taken.body, dequeue_count=taken.dequeue_count)
            if await _attempt(self._functions["score_chunk"](message)):
                queues.delete(taken)


async def _attempt(call: Any) -> bool:
    try:
        await call
    except Exception:  # noqa: BLE001 a host logs it, and goes on
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    serve()
