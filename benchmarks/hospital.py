"""A hospital to measure in: a model, charts, and the two processes around them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.patients import Asked
from benchmarks.staging import NOW, write_model
from deployr_cli.demo.processes import Running, running
from deployr_cli.demo.run import TASK
from deployr_core.features import FeatureSpec
from deployr_serve.adapters.bundle_files import read_bundle
from deployr_serve.bootstrap import Application, build
from deployr_serve.settings import read_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Hospital:
    """The running processes, and where their files are."""

    processes: Running
    folder: Path
    spec: FeatureSpec

    def application(self, **settings: str) -> Application:
        """Put the app together in this process, reading from the same EMR; it writes nothing there."""
        base = {
            "DEPLOYR_BUNDLES": str(self.folder / "bundles"),
            "DEPLOYR_STORE": f"sqlite:{self.folder / 'ours.sqlite'}",
            "DEPLOYR_EMR_FHIR_BASE": f"{self.processes.emr}/api/FHIR/R4",
            "DEPLOYR_CLOCK_FILE": str(self.folder / "now"),
        }
        return build(read_settings({**base, **settings}))


@contextmanager
def hospital(
    write_charts: Callable[[Path], None],
    *,
    emr_delay_ms: int,
    writes_back: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Hospital]:
    """Train the model with 100 trees, write the charts, start the EMR and the host over them.

    ``writes_back``: whether the host sends its scores to the EMR; without, an inference is reading and scoring alone.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, trees=100)
        write_charts(folder / "fhir")
        with running(
            workspace=folder,
            fhir=folder / "fhir",
            bundles=folder / "bundles",
            now=NOW,
            clock_file=folder / "now",
            emr_delay_ms=emr_delay_ms,
            emr_is_open=True,
            settings={**({} if writes_back else {"DEPLOYR_EMR_VENDOR_BASE": ""}), **(settings or {})},
        ) as processes:
            yield Hospital(processes=processes, folder=folder, spec=read_bundle(folder / "bundles" / TASK).spec)


async def score_over_http(session: aiohttp.ClientSession, processes: Running, what: Asked) -> None:
    """Ask the host for one score.

    Raises:
        RuntimeError: anything but a score came back.
    """
    body = {
        "patientId": what.patient_id,
        "encounterId": what.encounter_id,
        "orderId": what.order_id,
        "eventTime": NOW.isoformat(),
    }
    headers = {"x-functions-key": processes.function_key}
    url = f"{processes.host}/api/models/{TASK}/infer"
    async with session.post(url, json=body, headers=headers) as response:
        answer = await response.json()
        if answer.get("status") != "scored":
            raise RuntimeError(f"expected a score, got status {response.status}")
