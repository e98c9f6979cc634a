"""Stand-ins for Azure Cosmos DB and Azure Storage, run on free ports of this machine for as long as they are needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent
COSMOS_KEY = "dGhlIHN0YW5kLWluIHRha2VzIGFueSBrZXk="
"""Any base64 does: the stand-in checks no signature."""
STORAGE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Source: Microsoft Learn, "Use the Azurite emulator": a public key, the same for everybody."""


def missing(package: str) -> str | None:
    """Say what has to be installed before the stand-in of that npm package can run; None if nothing."""
    if shutil.which("node") is None:
        return "expected Node 20 or later to run the stand-ins for Azure with"
    if not (FOLDER / "node_modules" / package).is_dir():
        return f"expected the npm package {package}: npm ci in tests/emulators"
    return None


@contextmanager
def running_cosmos() -> Iterator[str]:
    """Run the stand-in for Cosmos DB, in memory; give its address. Any base64 is its key."""
    with _running(["node", str(FOLDER / "launcher.cjs")], r"Ready (http://\S+)", places=1) as [address]:
        yield address


@contextmanager
def running_azurite() -> Iterator[str]:
    """Run Azurite, in memory; give its connection string, for blobs and queues."""
    script = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    ports = ["--blobPort", "0", "--queuePort", "0", "--tablePort", "0"]
    listening = r"(?:Blob|Queue|Table) service is successfully listening at (http://\S+)"
    with _running(["node", str(script), *options, *ports], listening, places=3) as [blobs, queues, _]:
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={STORAGE_KEY};"
            f"BlobEndpoint={blobs}/devstoreaccount1;QueueEndpoint={queues}/devstoreaccount1;"
        )


@contextmanager
def _running(command: list[str], ready: str, *, places: int) -> Iterator[list[str]]:
    """Run a server until the context ends; give the addresses that it says it listens on, in order of saying."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    out = process.stdout
    said: list[str] = []
    found: list[str] = []
    for line in out:
        said.append(line)
        found += re.findall(ready, line)
        if len(found) == places:
            break
    # What it says later must be read, or it stands still once the pipe is full.
    rest = threading.Thread(target=out.read, daemon=True)
    rest.start()
    try:
        assert len(found) == places, f"{command[1]} did not start: {''.join(said)}"
        yield found
    finally:
        process.terminate()
        process.wait(20)
        rest.join(20)
        process.stdin.close()
        out.close()
