"""Several hosts over one stand-in for Cosmos DB and one for Azure's queues; what each uses, and how one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from benchmarks.load import processor_s
from benchmarks.staging import NOW
from deployr_cli.demo.processes import SETTINGS_FILE, Running, function_app, running
from deployr_cli.up_azure import running_like_azure

HOSTS, EMR, COSMOS, QUEUES, SENDER = "hosts", "EMR", "Cosmos DB stand-in", "Azurite", "sender"
_SCRIPTS = {"launcher.cjs": COSMOS, "azurite.js": QUEUES}
_STOP_S = 10.0
_START_S, _ASKED_EVERY_S = 120.0, 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """The processes of one measurement. ``azure``: the settings by which hosts find the stand-ins."""

    processes: Running
    folder: Path
    azure: Mapping[str, str] = field(repr=False)
    stand_ins: Mapping[str, int]
    """The process id of each stand-in, by its name."""
    again: dict[int, list[subprocess.Popen[bytes]]]
    """Hosts that were started again, by the place of the one that was killed."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where the hosts answer; one that was killed answers there again once it is up."""
        return self.processes.hosts

    def used_s(self) -> Counter[str]:
        """Give the seconds of processor time that each kind of process has used so far."""
        used = Counter({HOSTS: sum(processor_s(pid) for pid in self._host_pids())})
        used.update({name: processor_s(pid) for name, pid in self.stand_ins.items()})
        used.update({EMR: processor_s(self.processes.emr_pid), SENDER: processor_s(os.getpid())})
        return used

    def memory_mb(self) -> float:
        """Give the resident memory of the host that holds most, in MB."""
        return max(_resident_mb(pid) for pid in self._living_pids())

    async def kill(self, place: int) -> None:
        """Kill a host in whatever it is doing, and start it again at the same address."""
        pid = self._living_pids()[place]
        os.kill(pid, signal.SIGKILL)
        # Nobody waits for it before the end: until then what it used stays known.
        self.again.setdefault(place, []).append(await asyncio.to_thread(self._start, place))

    async def until_all_answer(self, session: aiohttp.ClientSession) -> None:
        """Wait for the hosts that were started again.

        Raises:
            TimeoutError: one does not answer.
        """
        async with asyncio.timeout(_START_S):
            for host in self.hosts:
                while not await _answers(host, session):  # noqa: ASYNC110 another process starts
                    await asyncio.sleep(_ASKED_EVERY_S)

    def stop(self) -> None:
        """Stop what was started again."""
        for process in (each for started in self.again.values() for each in started):
            process.terminate()
        for process in (each for started in self.again.values() for each in started):
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        port = str(urlsplit(self.hosts[place]).port)
        command = [sys.executable, "-m", "deployr_serve.local_host", "--app", str(function_app()), "--port", port]
        command += ["--state", str(self.folder / f"timers-again-{place}")]
        command += ["--settings", str(self.folder / SETTINGS_FILE)]
        keys = {
            "DEPLOYR_HOST_FUNCTION_KEY": self.processes.function_key,
            "DEPLOYR_HOST_MASTER_KEY": self.processes.master_key,
        }
        with (self.folder / f"host-again-{place}.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 our own interpreter and modules
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **keys},
                process_group=0,
            )

    def _living_pids(self) -> tuple[int, ...]:
        return tuple(
            self.again[place][-1].pid if place in self.again else pid
            for place, pid in enumerate(self.processes.host_pids)
        )

    def _host_pids(self) -> Iterator[int]:
        yield from self.processes.host_pids
        for started in self.again.values():
            yield from (process.pid for process in started)


@contextmanager
def house(folder: Path, *, hosts: int, emr_delay_ms: int, settings: Mapping[str, str]) -> Iterator[House]:
    """Start the stand-ins, empty, an EMR and so many hosts over them.

    ``folder`` holds ``bundles`` and ``fhir``. The app's clock stands at `NOW` until its file is moved.

    Raises:
        CommandFailed: Node or a package is missing, or a process did not start.
    """
    own = folder / f"of-{hosts}"
    own.mkdir()
    with ExitStack() as stack:
        azure = stack.enter_context(running_like_azure())
        processes = stack.enter_context(
            running(
                workspace=own,
                fhir=folder / "fhir",
                bundles=folder / "bundles",
                now=NOW,
                clock_file=own / "now",
                hosts=hosts,
                emr_delay_ms=emr_delay_ms,
                emr_is_open=True,
                settings={**azure, **settings},
            )
        )
        made = House(processes=processes, folder=own, azure=azure, stand_ins=_stand_ins(), again={})
        stack.callback(made.stop)
        yield made


async def _answers(host: str, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get(f"{host}/api/health/ready") as response:
            await response.read()
    except (aiohttp.ClientError, TimeoutError):
        return False
    return True


def _stand_ins() -> dict[str, int]:
    """Find the stand-ins among the processes that this one has started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_text(encoding="utf-8").split("\0")
        except (OSError, ValueError):
            # It has ended meanwhile.
            continue
        script = _SCRIPTS.get(Path(words[1]).name) if parent == os.getpid() and len(words) > 1 else None
        if script is not None:
            found[script] = int(folder.name)
    return found


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
