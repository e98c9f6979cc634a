"""A champion swapped and rolled back under load: no failed request, and how many seconds until every worker is over.

Two hosts over one store answer requests that come by a schedule. An operator deploys by a command, in a process of its
own, and by the route of one of the hosts, and rolls back in both ways. Seconds count from when that is begun until the
last answer by the bundle that it takes away. `python -m benchmarks.model_swap` runs it, for a minute.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from benchmarks.patients import Asked, asked, write_patients
from benchmarks.staging import NOW, write_model
from deployr_cli.demo.processes import SETTINGS_FILE, Running, running
from deployr_cli.demo.run import TASK
from deployr_cli.models_site import login_name
from deployr_core.bundle import MANIFEST_FILE, CodeVersion, parse_manifest, sha256_hex
from deployr_core.registry.run import RUN_FILE, RUN_SIGNATURE_FILE, DataSet, DeployType, Run, Sets, derive_run_id
from deployr_core.signing import SIGNATURE_FILE, sign_manifest

_RATE, _PHASE_S = 10.0, 15.0
_PATIENTS, _ORDERS, _OF_EACH = 20, 400, 20
_LONGEST_WAIT_S = 30.0
_OPERATOR, _PASSWORD = "operator", "of this measurement alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One request: when its answer came, in seconds from the start, by which host, and by which version."""

    at_s: float
    host: str
    said: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """A command: when it was begun and when it had ended, in seconds from the start, and what it brings."""

    name: str
    began_s: float
    ended_s: float
    version: str


def main() -> int:
    """Measure, and print what came of it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, trees=100)
        write_patients(folder / "fhir", patients=_PATIENTS, orders=_ORDERS, of_each=_OF_EACH)
        key = Ed25519PrivateKey.generate()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "site.pub.pem").write_bytes(pem)
        runs = [_run(folder, version, key) for version in ("1.1.0", "1.2.0", "1.3.0")]
        _sign(folder / "bundles" / TASK, key)
        with running(
            workspace=folder,
            fhir=folder / "fhir",
            bundles=folder / "bundles",
            now=NOW,
            clock_file=folder / "now",
            emr_is_open=True,
            hosts=2,
            settings={
                "DEPLOYR_EMR_VENDOR_BASE": "",
                "DEPLOYR_REGISTRY": "required",
                "DEPLOYR_REGISTRY_PEOPLE": str(_write_people(folder)),
                "DEPLOYR_BUNDLE_ARCHIVE": str(folder / "runs"),
                "DEPLOYR_TRUSTED_KEYS": str(folder / "site.pub.pem"),
            },
        ) as processes:
            answers, swaps = asyncio.run(_measured(folder, processes, runs))
    _print(answers, swaps)
    return 0


async def _measured(folder: Path, processes: Running, runs: Sequence[Run]) -> tuple[list[Answered], list[Swap]]:
    started = time.perf_counter()
    answers: list[Answered] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LONGEST_WAIT_S)) as session:
        # The store is made by the first request.
        await _ask(session, processes, 0, started, answers)
        for run in runs:
            await _command(folder, "register", str(folder / "trained" / run.run_id))
            approval = {"why": "measured", "despite_failed": True}
            await _act(session, processes, f"runs/{run.run_id}/approve", "approver", approval)
        load = asyncio.create_task(_load(session, processes, started, answers))
        swaps = []
        acts: tuple[tuple[str, str, Callable[[], Awaitable[None]]], ...] = (
            ("deploy, by a command", "1.1.0", partial(_command, folder, "deploy", TASK, runs[0].run_id)),
            ("deploy, by the route", "1.2.0", partial(_act, session, processes, f"runs/{runs[1].run_id}/deploy")),
            ("rollback, by the route", "1.1.0", partial(_act, session, processes, "rollback")),
            ("deploy, by the route", "1.3.0", partial(_act, session, processes, f"runs/{runs[2].run_id}/deploy")),
            ("rollback, by a command", "1.1.0", partial(_command, folder, "rollback", TASK, "--why", "measured")),
        )
        for name, version, act in acts:
            await asyncio.sleep(_PHASE_S)
            began = time.perf_counter() - started
            await act()
            ended = time.perf_counter() - started
            swaps.append(Swap(name=name, began_s=began, ended_s=ended, version=version))
        await asyncio.sleep(_PHASE_S)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    return answers, swaps


async def _load(session: aiohttp.ClientSession, processes: Running, started: float, answers: list[Answered]) -> None:
    first, asking = time.perf_counter(), set[asyncio.Task[None]]()
    try:
        for number in range(1, _PATIENTS * _ORDERS):
            await asyncio.sleep(max(0.0, first + number / _RATE - time.perf_counter()))
            asking.add(asyncio.create_task(_ask(session, processes, number, started, answers)))
    finally:
        await asyncio.gather(*asking)


async def _ask(
    session: aiohttp.ClientSession, processes: Running, number: int, started: float, answers: list[Answered]
) -> None:
    host = processes.hosts[number % len(processes.hosts)]
    what: Asked = asked(number % _PATIENTS, number // _PATIENTS)
    body = {
        "patientId": what.patient_id,
        "encounterId": what.encounter_id,
        "orderId": what.order_id,
        "eventTime": NOW.isoformat(),
    }
    headers = {"x-functions-key": processes.function_key}
    try:
        async with session.post(f"{host}/api/models/{TASK}/infer", json=body, headers=headers) as response:
            told = await response.json(content_type=None)
            said = told["model"]["version"] if response.status == 200 else f"status {response.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        said = type(error).__name__
    answers.append(Answered(at_s=time.perf_counter() - started, host=host, said=said))


async def _act(
    session: aiohttp.ClientSession,
    processes: Running,
    path: str,
    by: str = _OPERATOR,
    body: dict[str, Any] | None = None,
) -> None:
    proof = base64.b64encode(f"{by}:{_PASSWORD}".encode()).decode()
    headers = {"x-functions-key": processes.function_key, "Authorization": f"Basic {proof}"}
    url = f"{processes.host}/api/registry/models/{TASK}/{path}"
    async with session.post(url, json=body or {"why": "measured"}, headers=headers) as response:
        if response.status != 200:
            raise RuntimeError(await response.text())


async def _command(folder: Path, *arguments: str) -> None:
    settings = ("--settings", str(folder / SETTINGS_FILE))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deployr_cli.main", "models", *arguments, *settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(said.decode())


def _write_people(folder: Path) -> Path:
    people = [
        {"name": _OPERATOR, "roles": ["developer"], "login": login_name(), "password": _PASSWORD},
        {"name": "approver", "roles": ["approver"], "password": _PASSWORD},
    ]
    file = folder / "people.json"
    file.write_text(json.dumps({"people": people}))
    return file


def _run(folder: Path, version: str, key: Ed25519PrivateKey) -> Run:
    """Write a run whose bundle is the trained one under another version."""
    trained = folder / "bundles" / TASK
    manifest = msgspec.structs.replace(parse_manifest((trained / MANIFEST_FILE).read_bytes()), version=version)
    rows = DataSet(
        rows=manifest.training.rows,
        patients=manifest.training.patients,
        positives=None,
        rows_sha256=manifest.training.snapshot_sha256,
        features_sha256=manifest.training.snapshot_sha256,
        first=NOW.date(),
        last=NOW.date(),
    )
    sets = Sets(train=rows, validation=None, test=rows)
    code = manifest.code_version or CodeVersion(package="", sources_sha256="")
    digest = sha256_hex(manifest.to_json())
    config = "0" * 64
    run = Run(
        run_id=derive_run_id(TASK, config_sha256=config, sets=sets, code_version=code, bundle_sha256=digest),
        model_id=TASK,
        config_sha256=config,
        opened_at=NOW,
        trained_by="trainer",
        source="synthetic",
        code_version=code,
        sets=sets,
        bundle_sha256=digest,
        deploy_type=DeployType.CLOUD,
        test=manifest.evaluation.figures,
        has_snapshot=False,
    )
    at = folder / "trained" / run.run_id / "bundle"
    at.mkdir(parents=True)
    for name in manifest.part_names:
        (at / name).write_bytes((trained / name).read_bytes())
    (at / MANIFEST_FILE).write_bytes(manifest.to_json())
    (at.parent / RUN_FILE).write_bytes(run.to_json())
    (at.parent / RUN_SIGNATURE_FILE).write_bytes(sign_manifest(run.to_json(), _pem(key)))
    _sign(at, key)
    return run


def _sign(bundle: Path, key: Ed25519PrivateKey) -> None:
    (bundle / SIGNATURE_FILE).write_bytes(sign_manifest((bundle / MANIFEST_FILE).read_bytes(), _pem(key)))


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _print(answers: list[Answered], swaps: list[Swap]) -> None:
    told = {
        "requests": len(answers),
        "answered by": dict(Counter(answer.said for answer in answers)),
        "swaps": [
            {
                "what": swap.name,
                "took s": round(swap.ended_s - swap.began_s, 2),
                "last answer by another, of each host": [
                    _last_by_another(answers, swap, host, swaps) for host in _hosts(answers)
                ],
            }
            for swap in swaps
        ],
    }
    print(json.dumps(told, indent=1))


def _hosts(answers: list[Answered]) -> list[str]:
    return sorted({answer.host for answer in answers})


def _last_by_another(answers: list[Answered], swap: Swap, host: str, swaps: list[Swap]) -> dict[str, float]:
    """Give when a host's last answer by another version came, from the command's begin and from its end, in s."""
    until = min((other.began_s for other in swaps if other.began_s > swap.began_s), default=float("inf"))
    last = max(
        (
            answer.at_s
            for answer in answers
            if answer.host == host and answer.said != swap.version and answer.at_s < until
        ),
        default=swap.began_s,
    )
    return {"from its begin": round(last - swap.began_s, 2), "from its end": round(last - swap.ended_s, 2)}


if __name__ == "__main__":
    sys.exit(main())
