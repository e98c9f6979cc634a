"""`python -m mock_emr`: load a folder, listen on loopback, say so in one line, end on SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mock_emr.assertion import Key, KeySetError, keys_in
from mock_emr.clock import EmrClock
from mock_emr.dates import DateError, instant_of
from mock_emr.hosting import Host, bound_socket, url_of
from mock_emr.loading import LoadError, load_folder
from mock_emr.serve import create_app, real_now
from mock_emr.store import StoreError


def main(arguments: Sequence[str]) -> int:
    """Run the command; give its exit code: 0 after a signal, 2 where it could not start."""
    options = _parser().parse_args(arguments)
    try:
        clients = dict(_client(text) for text in options.client)
        store = load_folder(options.data)
        sock = bound_socket(options.port)
    except (LoadError, StoreError, KeySetError) as error:
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
            clock=EmrClock(real_now=real_now, now=options.now),
            clients=clients,
            open_access=options.open,
            delay_s=options.delay_ms / 1000,
            base_url=url,
        )
        host = Host(app, on_ready=lambda: _say(f"Ready {url}"))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: host.stop())
        asyncio.run(host.serve(sockets=[sock]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mock_emr", description="A mock EMR on loopback.")
    parser.add_argument("--data", type=Path, required=True, help="folder of *.ndjson or *.ndjson.gz, FHIR R4")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
    parser.add_argument("--client", action="append", default=[], metavar="ID=JWKS_FILE", help="may be repeated")
    parser.add_argument("--now", type=_instant, help="the EMR's instant, with an offset; else the real time")
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


def _complain(message: str) -> int:
    sys.stderr.write(f"mock_emr: {message}\n")
    return 2


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
