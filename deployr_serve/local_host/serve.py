"""The running host: one process, one event loop, until it is told to stop."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from deployr_serve.local_host.app import HostApp, create_app
from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.host_json import read_host_json
from deployr_serve.local_host.http import MAX_BODY_BYTES
from deployr_serve.local_host.invocation import BackgroundRuns, Invoker
from deployr_serve.local_host.keys import HostKeys
from deployr_serve.local_host.loading import LoadedApp, QueueFunction, load_app
from deployr_serve.local_host.ncrontab import parse_schedule, parse_time_zone
from deployr_serve.local_host.queue_file import Queues
from deployr_serve.local_host.queue_runner import QueueRunner, QueueRunners
from deployr_serve.local_host.queue_storage import open_queues
from deployr_serve.local_host.schedule_status import FileStatusStore, NoStatusStore
from deployr_serve.local_host.threads import DaemonThreads, thread_limit
from deployr_serve.local_host.timers import Clock, SchedulerAlarm, TimerRunner, Timers, utc_now

logger = logging.getLogger(__name__)

GRACE_S = 10.0
"""How long a host that was told to stop waits for what is under way."""

_KEEP_ALIVE_S = 120


@dataclass(frozen=True, kw_only=True)
class Host:
    """An app, ready to be served.

    Attributes:
        asgi: answers requests; usable without a server.
        start_timers: begins the schedules, on the running loop.
        queues: the functions that run for messages.
        background: the runs that nobody waits for.
        threads: where synchronous functions run.
    """

    app: LoadedApp
    asgi: HostApp
    timers: Timers
    start_timers: Callable[[], None]
    queues: QueueRunners
    background: BackgroundRuns
    threads: DaemonThreads


def build_host(
    *,
    app_path: Path,
    keys: HostKeys,
    settings: Mapping[str, str],
    state_dir: Path | None,
    skip_unsupported: bool = False,
    max_body_bytes: int | None = None,
    cors: Sequence[str] = (),
    clock: Clock = utc_now,
) -> Host:
    """Load an app and put a host together around it; call it on the loop that will serve.

    The app is imported here, with that loop running, as on the real worker.

    Args:
        app_path: a ``function_app.py``, or the folder that holds one; ``host.json`` is beside it.
        keys: for functions of level FUNCTION and ADMIN and for the admin API.
        settings: the app's settings, for ``%NAME%`` in schedules, the connections of queues, ``WEBSITE_TIME_ZONE``,
            ``PYTHON_THREADPOOL_THREAD_COUNT`` and ``FUNCTIONS_REQUEST_BODY_SIZE_LIMIT``. The environment is
            neither read nor changed.
        state_dir: where timers keep their status; None keeps it in memory, so no missed slot is noticed.
        skip_unsupported: leave out, with a warning, functions that this host cannot run.
        max_body_bytes: the largest request body; None takes the setting's, else Azure's 100 MB.
        cors: see `create_app`.
        clock: tells timers the time.

    Raises:
        HostSetupError: something has to be put right first; the message says what.
    """
    app = load_app(app_path, skip_unsupported=skip_unsupported)
    host_json = read_host_json(app.folder / "host.json")
    zone = parse_time_zone(settings)
    schedules = {each.name: parse_schedule(each.schedule, function=each.name, settings=settings) for each in app.timers}
    threads = DaemonThreads(limit=thread_limit(settings))
    invoker = Invoker(folder=app.folder, threads=threads, timeout=host_json.function_timeout)
    background = BackgroundRuns()
    store = FileStatusStore(state_dir) if state_dir is not None and schedules else NoStatusStore()
    timers = Timers(
        [
            TimerRunner(each, schedule=schedules[each.name], zone=zone, invoker=invoker, store=store, clock=clock)
            for each in app.timers
        ],
        background=background,
    )

    queues = QueueRunners(
        [
            QueueRunner(
                each,
                queues=_queues_of(each, settings, clock=clock),
                invoker=invoker,
                limits=host_json.queues,
            )
            for each in app.queued
        ],
        batch_size=host_json.queues.batch_size,
        background=background,
    )

    def start_timers() -> None:
        # APScheduler takes 70 ms to import: an app without timers never does.
        if len(timers):
            timers.start(SchedulerAlarm(zone=zone))

    asgi = create_app(
        app=app,
        host_json=host_json,
        keys=keys,
        invoker=invoker,
        timers=timers,
        queues=queues,
        background=background,
        max_body_bytes=_body_limit(settings) if max_body_bytes is None else max_body_bytes,
        cors=cors,
    )
    return Host(
        app=app,
        asgi=asgi,
        timers=timers,
        start_timers=start_timers,
        queues=queues,
        background=background,
        threads=threads,
    )


def run_host(
    *,
    app_path: Path,
    keys: HostKeys,
    settings: Mapping[str, str],
    state_dir: Path | None,
    announce: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 7071,
    skip_unsupported: bool = False,
    max_body_bytes: int | None = None,
    cors: Sequence[str] = (),
    grace_s: float = GRACE_S,
    clock: Clock = utc_now,
) -> None:
    """Serve an app until SIGTERM or SIGINT, then let what is under way finish, and return.

    A second signal stops at once. Requests and timers share one event loop, as on the real worker.

    Args:
        app_path: see :func:`build_host`, as for the other arguments that it has too.
        announce: is given the line ``Ready http://HOST:PORT`` once, when the port listens.
        host: the address to listen on.
        port: 0 takes a free one.
        grace_s: how long to wait for what is under way.

    Raises:
        HostSetupError: something has to be put right first; the message says what.
    """

    async def main() -> None:
        built = build_host(
            app_path=app_path,
            keys=keys,
            settings=settings,
            state_dir=state_dir,
            skip_unsupported=skip_unsupported,
            max_body_bytes=max_body_bytes,
            cors=cors,
            clock=clock,
        )
        await serve(built, host=host, port=port, announce=announce, grace_s=grace_s)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give the faster event loop where it is to be had: not on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def serve(
    built: Host,
    *,
    announce: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 7071,
    grace_s: float = GRACE_S,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve a host on the running loop until ``stop`` is set or, on the main thread, a signal comes.

    Args:
        built: see :func:`build_host`.
        announce: see :func:`run_host`, as for ``host``, ``port`` and ``grace_s``.
        stop: set it to stop; a second signal then stops at once.

    Raises:
        HostSetupError: the port cannot be had.
    """
    loop = asyncio.get_running_loop()
    listening = _bound(host, port)
    address = listening.getsockname()
    server = _Server(built, announce=announce, ready=_ready_line(address), grace_s=grace_s)
    try:
        with _signals(server.stop):
            watcher = loop.create_task(_stop_when(stop, server)) if stop is not None else None
            try:
                await server.serve(sockets=[listening])
            finally:
                if watcher is not None:
                    watcher.cancel()
            grace_left = 0.0 if server.force_exit else max(0.0, server.stopped_at + grace_s - loop.time())
            await built.background.drain(grace_s=grace_left)
    finally:
        built.timers.stop()
        built.queues.stop()
        built.threads.shutdown(wait=False, cancel_futures=True)
        listening.close()


class _Server(uvicorn.Server):
    """Uvicorn, with our timers, our line when it is ready and our signals."""

    def __init__(self, built: Host, *, announce: Callable[[str], None], ready: str, grace_s: float) -> None:
        config = uvicorn.Config(
            built.asgi,
            access_log=False,  # its lines hold URLs, and those hold patients' values
            log_config=None,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
        super().__init__(config)
        self._built = built
        self._announce = announce
        self._ready = ready
        self.stopped_at = 0.0

    def stop(self) -> None:
        """Stop gracefully; asked again, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # What is loaded by now stays: the garbage collector need not look through it again and again, beside requests.
        gc.collect()
        gc.freeze()
        self._announce(self._ready)
        self._built.start_timers()
        self._built.queues.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stopped_at = asyncio.get_running_loop().time()
        self._built.timers.stop()
        self._built.queues.stop()
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Uvicorn's own would raise the signal again afterwards and end the process with it.
        yield


async def _stop_when(stop: asyncio.Event, server: _Server) -> None:
    await stop.wait()
    server.stop()


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Generator[None, None, None]:
    """Have SIGTERM and SIGINT call ``stop`` meanwhile; elsewhere than on the main thread, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise HostSetupError(
            f"address {host}, port {port}: expected to listen there, got {error.strerror or error}"
        ) from error
    return listening


def _ready_line(address: tuple[str, int]) -> str:
    name, port = address[:2]
    return f"Ready http://{f'[{name}]' if ':' in name else name}:{port}"


def _queues_of(function: QueueFunction, settings: Mapping[str, str], *, clock: Clock) -> Queues:
    """Source: Microsoft Learn, "Azure Queue storage trigger", section "Connections"."""
    named = settings.get(function.connection) or settings.get(f"{function.connection}__queueServiceUri")
    where = f"function {function.name}: setting {function.connection}"
    if not named:
        raise HostSetupError(f"{where}: expected sqlite: and a file, or an Azure Storage connection; it is missing")
    try:
        return open_queues(named, clock=clock)
    except ValueError as error:
        raise HostSetupError(f"{where}: {error}") from None


def _body_limit(settings: Mapping[str, str]) -> int:
    """Source: Microsoft Learn, "App settings reference", FUNCTIONS_REQUEST_BODY_SIZE_LIMIT."""
    text = settings.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT")
    if text is None:
        return MAX_BODY_BYTES
    if not text.isdecimal():
        raise HostSetupError(f"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: expected a number of bytes, got {text!r}")
    return int(text)
