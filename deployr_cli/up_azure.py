"""Stand-ins for Azure Cosmos DB and Azure Storage, run on free ports of this machine for as long as they are needed."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deployr_cli
from deployr_cli.failures import CommandFailed
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.store_bootstrap import open_store
from deployr_serve.store_settings import InCosmos

COSMOS_KEY = "dGhlIHN0YW5kLWluIHRha2VzIGFueSBrZXk="
"""Any base64 does: the stand-in checks no signature."""
STORAGE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Source: Microsoft Learn, "Use the Azurite emulator": a public key, the same for everybody."""

_FOLDER = Path(deployr_cli.__file__).resolve().parent.parent / "tests" / "emulators"
_PACKAGES = ("@vercel/cosmosdb-server", "azurite")
_DATABASE = "deployr"
_STOP_S = 20
_INIT_S = 60.0


def missing(*packages: str) -> str | None:
    """Say what has to be installed before the stand-ins of these npm packages, or of both, can run; None if nothing."""
    if shutil.which("node") is None:
        return "expected Node 20 or later to run the stand-ins for Azure with; after it: npm ci in tests/emulators"
    absent = [name for name in packages or _PACKAGES if not (_FOLDER / "node_modules" / name).is_dir()]
    return f"expected the npm packages {' and '.join(absent)}: npm ci in tests/emulators" if absent else None


@contextmanager
def running_like_azure() -> Iterator[dict[str, str]]:
    """Run both, empty; give the settings of an app that keeps its packets, blobs and queues there.

    Raises:
        CommandFailed: Node or a package is missing, or one of them did not start.
    """
    if (what := missing()) is not None:
        raise CommandFailed(f"--azure-like: {what}")
    with running_cosmos() as address, running_azurite() as storage:
        asyncio.run(_laid_out(address, storage))
        yield {
            "DEPLOYR_STORE": f"cosmos:{address}",
            "DEPLOYR_STORE_DATABASE": _DATABASE,
            "DEPLOYR_STORE_KEY": COSMOS_KEY,
            "DEPLOYR_STORE_BLOBS": storage,
            "AzureWebJobsStorage": storage,
        }


@contextmanager
def running_cosmos() -> Iterator[str]:
    """Run the stand-in for Cosmos DB, in memory; give its address. Any base64 is its key.

    Raises:
        CommandFailed: it did not start.
    """
    with _running(["node", str(_FOLDER / "launcher.cjs")], r"Ready (http://\S+)", places=1) as [address]:
        yield address


@contextmanager
def running_azurite() -> Iterator[str]:
    """Run Azurite, in memory; give its connection string, for blobs and queues.

    Raises:
        CommandFailed: it did not start.
    """
    script = _FOLDER / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    ports = ["--blobPort", "0", "--queuePort", "0", "--tablePort", "0"]
    listening = r"(?:Blob|Queue|Table) service is successfully listening at (http://\S+)"
    with _running(["node", str(script), *options, *ports], listening, places=3) as [blobs, queues, _]:
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={STORAGE_KEY};"
            f"BlobEndpoint={blobs}/devstoreaccount1;QueueEndpoint={queues}/devstoreaccount1;"
        )


async def _laid_out(address: str, storage: str) -> None:
    """Make the database and its containers, as `deployr store init` does."""
    where = InCosmos(address=address, database=_DATABASE, key=COSMOS_KEY, blobs=storage, identity=None)
    store = open_store(where, clock=SystemClock(), deadline_s=_INIT_S)
    try:
        await store.init()
    finally:
        await store.aclose()


@contextmanager
def _running(command: list[str], ready: str, *, places: int) -> Iterator[list[str]]:
    """Run a server until the context ends; give the addresses that it says it listens on, in order of saying."""
    process = subprocess.Popen(  # noqa: S603 our own command lines
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is for us alone: we stop them in turn.
        process_group=0,
    )
    with process:
        said: list[str] = []
        found: list[str] = []
        for line in process.stdout or ():
            said.append(line)
            found += re.findall(ready, line)
            if len(found) == places:
                break
        # What it says later must be read, or it stands still once the pipe is full.
        rest = threading.Thread(target=_read_on, args=(process,), daemon=True)
        rest.start()
        try:
            if len(found) != places:
                raise CommandFailed(f"{command[1]} did not start: {''.join(said).strip() or 'it said nothing'}")
            yield found
        finally:
            process.terminate()
            process.wait(_STOP_S)
            rest.join(_STOP_S)


def _read_on(process: subprocess.Popen[str]) -> None:
    if process.stdout is not None:
        process.stdout.read()
