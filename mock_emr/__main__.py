"""`python -m mock_emr`: load a folder, listen on loopback, say so in one line, end on SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mock_emr.assertion import Key, KeySetError, keys_in
from mock_emr.clock import ClockFile, EmrClock, keep_moving
from mock_emr.dates import DateError, instant_of
from mock_emr.faults import FaultError, Rule, rules_in_yaml
from mock_emr.hosting import Host, bound_socket, url_of
from mock_emr.loading import LoadError, load_folder
from mock_emr.serve import create_app, real_now
from mock_emr.store import StoreError


def main(arguments: Sequence[str]) -> int:
    """Run the command; give its exit code: 0 after a signal, 2 where it could not start."""
    options = _parser().parse_args(arguments)
    try:
        clients = dict(_client(text) for text in options.client)
        users = dict(_user(text) for text in options.user)
        store = load_folder(options.data)
        faults = () if options.faults is None else _faults(options.faults)
        clock = _clock(options.now, options.clock_file)
        sock = bound_socket(options.port)
    except (LoadError, StoreError, KeySetError, FaultError, _ClockFileError, _UserError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"port {options.port}: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    # The chart lives as long as the process: without it in sight, no garbage collection stalls a benchmark.
    gc.collect()
    gc.freeze()
    with contextlib.closing(sock):
        url = url_of(sock)
        app = create_app(
            store,
            clock=clock,
            clients=clients,
            users=users,
            open_access=options.open,
            delay_s=options.delay_ms / 1000,
            base_url=url,
        )
        app.state.emr.faults.add(faults)
        host = Host(app, on_ready=lambda: _say(f"Ready {url}"))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: host.stop())
        asyncio.run(_serve(host, sock, clock))
    return 0


class _UserError(ValueError):
    """A user's password cannot be had."""


class _ClockFileError(ValueError):
    """The clock file cannot be written, or there is nothing to write into it."""


async def _serve(host: Host, sock: socket.socket, clock: EmrClock) -> None:
    moving = asyncio.create_task(keep_moving(clock, sleep=asyncio.sleep))
    try:
        await host.serve(sockets=[sock])
    finally:
        moving.cancel()


def _clock(now: datetime | None, path: Path | None) -> EmrClock:
    if path is None:
        return EmrClock(real_now=real_now, now=now)
    if now is None:
        raise _ClockFileError("--clock-file: expected --now too, for the file holds where the clock was put")
    try:
        return EmrClock(real_now=real_now, now=now, tell=ClockFile(path).write)
    except OSError as error:
        raise _ClockFileError(f"{path}: {error.strerror}") from error


def _faults(path: Path) -> tuple[Rule, ...]:
    try:
        return rules_in_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FaultError(f"{path}: {error.strerror}") from error
    except (FaultError, UnicodeDecodeError) as error:
        raise FaultError(f"{path}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mock_emr", description="A mock EMR on loopback.")
    parser.add_argument("--data", type=Path, required=True, help="folder of *.ndjson or *.ndjson.gz, FHIR R4")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
    parser.add_argument("--client", action="append", default=[], metavar="ID=JWKS_FILE", help="may be repeated")
    parser.add_argument("--user", action="append", default=[], metavar="NAME=PASSWORD_FILE", help="may be repeated")
    parser.add_argument("--now", type=_instant, help="the EMR's instant, with an offset; else the real time")
    parser.add_argument(
        "--clock-file", type=Path, help="keep the EMR's instant in this file, for a bridge that shares it"
    )
    parser.add_argument("--faults", type=Path, help="YAML file of fault rules, docs/mock-emr.md")
    parser.add_argument("--delay-ms", type=_delay, default=0, help="wait before every FHIR and vendor call")
    parser.add_argument("--open", action="store_true", help="ask for no token")
    return parser


def _instant(text: str) -> datetime:
    try:
        return instant_of(text)
    except DateError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _delay(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError("expected whole milliseconds, 0 or more")
    return int(text)


def _client(text: str) -> tuple[str, tuple[Key, ...]]:
    client_id, _, path = text.partition("=")
    if not client_id or not path:
        raise KeySetError("--client: expected ID=JWKS_FILE")
    try:
        return client_id, keys_in(Path(path).read_bytes())
    except OSError as error:
        raise KeySetError(f"{path}: {error.strerror}") from error
    except KeySetError as error:
        raise KeySetError(f"{path}: {error}") from error


def _user(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise _UserError("--user: expected NAME=PASSWORD_FILE")
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _UserError(f"{path}: cannot be read") from error
    if not password:
        raise _UserError(f"{path}: expected a password")
    return name, password


def _complain(message: str) -> int:
    sys.stderr.write(f"mock_emr: {message}\n")
    return 2


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
