"""The mock EMR and the function host as real processes that talk HTTP."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from secrets import token_urlsafe

import msgspec

import deployr_cli
from deployr_cli.failures import CommandFailed

CLIENT_ID = "deployr-demo"
_KEY_ID = "demo-1"
SETTINGS_FILE = "local.settings.json"
_START_S = 300.0
"""A process that ends is noticed at once; half a million resources take a mock EMR half a minute of an idle core."""
_STOP_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Where the processes answer, and the keys that each host takes.

    ``hosts``: every function host, ``host`` the first of them; ``host_pids`` in the same order.
    """

    emr: str
    emr_pid: int
    host: str
    host_pid: int
    hosts: tuple[str, ...]
    host_pids: tuple[int, ...]
    host_started: float
    """On the line of `time.perf_counter`."""
    function_key: str = field(repr=False)
    master_key: str = field(repr=False)
    ended: Callable[[], str | None]
    """Names the one that has ended by itself; None while all run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Started:
    address: str
    process: subprocess.Popen[str]
    started: float


@contextmanager
def running(
    *,
    workspace: Path,
    fhir: Path,
    bundles: Path,
    now: datetime,
    clock_file: Path,
    emr_port: int = 0,
    host_port: int = 0,
    hosts: int = 1,
    emr_delay_ms: int = 0,
    emr_is_open: bool = False,
    emr_keeps_clock: bool = False,
    app: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start them, wait until they listen, and stop them at the end whatever happens.

    Their output goes to ``emr.log`` and ``host.log`` in the workspace, and the app's settings to
    ``local.settings.json``, for other commands on the same store. A port of 0 takes a free one. ``hosts``: how many
    function hosts share the store; those beyond the first take free ports and log to ``host-2.log`` and so on.
    ``emr_delay_ms``: how long the EMR waits before it answers; ``emr_is_open``: it asks for no token;
    ``emr_keeps_clock``: where its clock is moved to stands in the clock file. ``app``: another function app than the
    one in the checkout. ``settings``: the app's, over those of the demo.

    Raises:
        CommandFailed: one of them did not start; the message holds its last words.
    """
    key_file, jwks_file = _make_client_key(workspace)
    clock_file.write_text(now.isoformat(), encoding="ascii")
    function_key, master_key = token_urlsafe(32), token_urlsafe(32)
    emr_command = ["-m", "mock_emr", "--data", str(fhir), "--port", str(emr_port), "--now", now.isoformat()]
    emr_command += ["--delay-ms", str(emr_delay_ms)]
    emr_command += ["--clock-file", str(clock_file)] if emr_keeps_clock else []
    emr_command += ["--open"] if emr_is_open else ["--client", f"{CLIENT_ID}={jwks_file}"]
    with _process(emr_command, log=workspace / "emr.log", environment={}) as emr:
        environment = {
            "DEPLOYR_PROFILE": "dev",
            "DEPLOYR_SITE": "demo",
            "DEPLOYR_ENVIRONMENT": "DEMO",
            "DEPLOYR_BUNDLES": str(bundles),
            "DEPLOYR_STORE": f"sqlite:{store_file(workspace)}",
            "DEPLOYR_ID_KEY": token_urlsafe(32),
            "DEPLOYR_EMR_FHIR_BASE": f"{emr.address}/api/FHIR/R4",
            "DEPLOYR_EMR_VENDOR_BASE": emr.address,
            "DEPLOYR_EMR_CLIENT_ID": "" if emr_is_open else CLIENT_ID,
            "DEPLOYR_EMR_KEY_FILE": str(key_file),
            "DEPLOYR_EMR_KEY_ID": _KEY_ID,
            "DEPLOYR_CLOCK_FILE": str(clock_file),
            # The demo fires the timers itself, when the replayed time has come.
            "DEPLOYR_LABEL_SCHEDULE": "0 0 0 1 1 *",
            "DEPLOYR_HOST_FUNCTION_KEY": function_key,
            "DEPLOYR_HOST_MASTER_KEY": master_key,
            **(settings or {}),
        }
        _write_settings(workspace / SETTINGS_FILE, environment)
        host_command = ["-m", "deployr_serve.local_host", "--app", str(app or function_app())]
        with ExitStack() as stack:
            named = {"emr": emr}
            for number in range(hosts):
                name = f"host-{number + 1}" if number else "host"
                state = workspace / (f"timers-{number + 1}" if number else "timers")
                port = 0 if number else host_port
                named[name] = stack.enter_context(
                    _process(
                        [*host_command, "--port", str(port), "--state", str(state)],
                        log=workspace / f"{name}.log",
                        environment=environment,
                    )
                )
            started = [each for name, each in named.items() if name != "emr"]
            yield Running(
                emr=emr.address,
                emr_pid=emr.process.pid,
                host=started[0].address,
                host_pid=started[0].process.pid,
                hosts=tuple(each.address for each in started),
                host_pids=tuple(each.process.pid for each in started),
                host_started=started[0].started,
                function_key=function_key,
                master_key=master_key,
                ended=lambda: next((name for name, it in named.items() if it.process.poll() is not None), None),
            )


def _write_settings(file: Path, environment: Mapping[str, str]) -> None:
    """Write what the app runs with, for its owner alone; without the host's own, which end with it."""
    values = {name: value for name, value in environment.items() if not name.startswith("DEPLOYR_HOST_")}
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.format(msgspec.json.encode({"IsEncrypted": False, "Values": values})))


def store_file(workspace: Path) -> Path:
    """Say where the demo's packets are kept."""
    return workspace / "packets.sqlite"


def function_app() -> Path:
    """Give the function app that stands beside the packages in a checkout.

    Raises:
        CommandFailed: it does not: the package was installed without it.
    """
    path = Path(deployr_cli.__file__).resolve().parent.parent / "function_app.py"
    if not path.is_file():
        raise CommandFailed("expected function_app.py beside the packages; run the demo from a checkout: make demo")
    return path


@contextmanager
def _process(arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Iterator[_Started]:
    with log.open("w", encoding="utf-8") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 our own interpreter and modules
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            # Never the sites of a hospital whose settings happen to be in the environment.
            env={**os.environ, "DEPLOYR_SITES": "", "DEPLOYR_AT": "", **environment},
            # Ctrl-C is for us alone: we stop them in turn.
            process_group=0,
        )
        try:
            yield _Started(address=_wait_until_ready(process, arguments[1], log), process=process, started=started)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def _wait_until_ready(process: subprocess.Popen[str], name: str, log: Path) -> str:
    """Give the address in the line ``Ready http://…``."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        if process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_START_S)
        except queue.Empty:
            line = ""
        if line.startswith("Ready "):
            return line.removeprefix("Ready ").strip()
        if not line:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise CommandFailed(f"{name} did not start: {' '.join(last) or 'it said nothing'}; see {log}")


def _make_client_key(workspace: Path) -> tuple[Path, Path]:
    """Make the key pair by which the bridge proves to the EMR who it is; the EMR gets the public half."""
    import jwt
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file, jwks_file = workspace / "client-key.pem", workspace / "client-jwks.json"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.touch(mode=0o600)
    key_file.write_bytes(pem)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwks = {"keys": [{**public, "kid": _KEY_ID, "alg": "RS384", "use": "sig"}]}
    jwks_file.write_bytes(msgspec.json.encode(jwks))
    return key_file, jwks_file
