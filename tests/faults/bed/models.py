"""Runs one case about a model: writes its bundle as the case says, a healthy one beside it, and asks both."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import threading
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deployr_core import bundle as bundles
from deployr_core.instants import parse_instant
from deployr_core.model_format import JOBLIB_FILE, MODEL_FILE, ModelFormat
from deployr_core.packet import Scored
from deployr_core.signing import SIGNATURE_FILE, sign_manifest
from deployr_serve.adapters.models import LOOKER, LOOKS_AGAIN_S
from deployr_serve.core.switches import EVERYTHING, HOLD_S, Change, model_switch, site_switch, turn
from tests.faults.bed.chart import REQUEST
from tests.faults.bed.estimators import Estimator
from tests.faults.bed.rows import ModelCase, Step, filled_in, merged
from tests.faults.bed.runner import _packets_of, _take, run_case
from tests.faults.bed.running import Bed, Run

_OURS, _THEIRS = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
_LONGEST_S = 60.0
_SOME = 5
"""So many calls of the EMR mean that requests are under way."""


class Runs:
    """Pickled, it runs the expression when it is loaded."""

    def __init__(self, expression: str) -> None:
        self.expression = expression

    def __reduce__(self) -> Any:
        return eval, (self.expression,)


async def run_model_case(case: ModelCase, bed: Bed) -> list[str]:
    """Run one case; see `runner.run_case`."""
    with tempfile.TemporaryDirectory() as name:
        models = _Models(Path(name), case, bed)
        settings = {"DEPLOYR_MODEL_PROOFS": f"{name}/proofs.json", **models.settings, **case.settings}
        with_settings = msgspec.structs.replace(case, settings=settings)
        take = models.swapped if case.swap else models.switched if case.switch else models.asked
        problems = await run_case(with_settings, replace(bed, bundles_of=models.write), take=take)
        if models.canary.exists() != case.sings:
            problems.append("code of the model ran" if models.canary.exists() else "expected the code to run")
        return problems


class _Models:
    def __init__(self, folder: Path, case: ModelCase, bed: Bed) -> None:
        self._folder = folder
        self._case = case
        self._bed = bed
        self.canary = folder / "canary"
        self.settings = {} if case.model == "forest" else {"DEPLOYR_ALLOW_PICKLE": "1"}
        if case.signed is not None:
            (folder / "trusted.pem").write_bytes(
                _OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )
            self.settings["DEPLOYR_TRUSTED_KEYS"] = str(folder / "trusted.pem")

    def write(self, changes: Mapping[str, Any]) -> Path:
        """Write the case's model, and a healthy one of another name."""
        healthy = self._bed.bundles_of({}) / "hematocrit"
        manifest = json.loads((healthy / bundles.MANIFEST_FILE).read_bytes())
        parts = {name: (healthy / name).read_bytes() for name in manifest["parts"]}
        into = self._folder / "bundles"
        self._put(into / "anemia", {**manifest, "model_id": "anemia"}, parts, signed="ours")
        if self._case.model != "forest":
            parts[JOBLIB_FILE] = self._joblib()
            del parts[MODEL_FILE]
            outputs = (0.25,) if self._case.model == "estimator" else (0.5,)
            golden = (bundles.GoldenVector(indices=(), values=(), outputs=outputs),)
            parts[bundles.GOLDEN_FILE] = msgspec.json.encode(golden)
            manifest["model"] = msgspec.to_builtins(ModelFormat(kind="joblib", runs_code=True))
        manifest["training"]["library_versions"] = dict(self._case.libraries)
        manifest["parts"] = {name: msgspec.to_builtins(bundles.describe_part(each)) for name, each in parts.items()}
        place = into / "hematocrit"
        self._put(place, merged(manifest, changes), parts, signed=self._case.signed)
        for name, how in self._case.spoil.items():
            _spoil(place / name, how)
        return into

    def _put(self, place: Path, manifest: Mapping[str, Any], parts: Mapping[str, bytes], *, signed: str | None) -> None:
        place.mkdir(parents=True)
        content = json.dumps(manifest).encode()
        for name, each in parts.items():
            (place / name).write_bytes(each)
        if signed in {"ours", "theirs", "before"}:
            key = _THEIRS if signed == "theirs" else _OURS
            private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (place / SIGNATURE_FILE).write_bytes(sign_manifest(content, private))
        (place / bundles.MANIFEST_FILE).write_bytes(content + (b" " if signed == "before" else b""))

    def _joblib(self) -> bytes:
        if self._case.model == "bomb":
            return _bomb()
        code = self._case.code.replace("$canary", str(self.canary))
        file = io.BytesIO()
        joblib.dump(Estimator(self._case.behaves) if self._case.model == "estimator" else Runs(code), file)
        return file.getvalue()

    async def asked(self, run: Run, step: Step) -> None:
        """Ask the case's model, and then the healthy one, which answers whatever the other does."""
        await _take(run, step)
        await self._others_answer(run)

    async def swapped(self, run: Run, step: Step) -> None:
        """Ask while another version is put in the place of the first; each packet is of one version and no other."""
        [app] = run.apps
        first = app.application.services.models.bundle("hematocrit").digest
        asking = [asyncio.ensure_future(app.infer(**each)) for each in _requests(run, 0)]
        new = self._replace_model()
        run.advanced_s += LOOKS_AGAIN_S
        asking += [asyncio.ensure_future(app.infer(**each)) for each in _requests(run, 1)]
        run.answers += await asyncio.gather(*asking)
        takes_over = self._case.swap == "new"
        await _looked_again()
        run.answers += await asyncio.gather(*(app.infer(**each) for each in _requests(run, 2)))
        packets = await _packets_of(app)
        run.expect(len(packets) == 3 * run.case.at_once, f"expected a packet each, got {len(packets)}")
        scores = {first: 1 / 2, new: 1 / 4}
        for packet in packets:
            outcome = packet.outcome
            whole = isinstance(outcome, Scored) and outcome.score == scores.get(packet.model.bundle_sha256)
            run.expect(whole, f"expected the score of the version that the packet names, got {type(outcome).__name__}")
        last = {packet.model.bundle_sha256 for packet in packets if packet.as_of <= _instant(run, 2, 0)}
        run.expect(last == {new if takes_over else first}, "expected the version that was to answer in the end")
        run.expect(all(answer.status_code == 200 for answer in run.answers), "an answer that is no score")
        await self._others_answer(run)

    async def switched(self, run: Run, step: Step) -> None:
        """Turn the switch while many are asked; within 5 seconds nothing new is read, scored, shown or sent."""
        [app], [upstream] = run.apps, run.upstreams
        services = app.application.services
        asking = [asyncio.ensure_future(app.infer(**each)) for each in _requests(run, 0)]
        await _under_way(upstream)
        names = {
            "model": model_switch("hematocrit"),
            "site": site_switch(services.site.name),
            "everything": EVERYTHING,
        }
        change = Change(is_off=True, by="the tests", why="to see it stop", at=services.clock.now())
        await turn(services.records, names[self._case.switch or ""], change)
        run.advanced_s += HOLD_S
        answers = await asyncio.gather(*asking)
        stopped = 0
        for answer in answers:
            content = json.loads(answer.get_body())
            stopped += content.get("reason") == "switched-off"
            fine = answer.status_code == 200 and (
                content["status"] == "scored" or content.get("reason") == "switched-off"
            )
            run.expect(fine, f"expected a score or switched-off, got {answer.status_code}")
        run.expect(stopped > 0, "expected the switch to stop some that were in flight")
        before = len(upstream.calls)
        run.answers += [*answers, *await asyncio.gather(*(app.infer(**each) for each in _requests(run, 1)))]
        await app.fire("relay_deliveries")
        late = run.answers[len(answers) :]
        run.expect(
            all(json.loads(each.get_body()).get("reason") == "switched-off" for each in late),
            "expected nothing but switched-off once the switch was read",
        )
        run.expect(len(upstream.calls) == before, "the EMR was called after the switch")
        packets = await _packets_of(app)
        run.expect(len(packets) == 2 * run.case.at_once, f"expected a packet each, got {len(packets)}")
        run.expect(all(packet.is_terminal for packet in packets), "a packet without an outcome")
        if self._case.switch == "model":
            await self._others_answer(run)

    def _replace_model(self) -> str:
        """Put another version in the place of the model, and give its digest: a forest that scores 1 / 4."""
        import treelite
        from sklearn.ensemble import RandomForestClassifier

        place = self._folder / "bundles" / "hematocrit"
        manifest = json.loads((place / bundles.MANIFEST_FILE).read_bytes())
        rows = np.zeros((4, manifest["n_features"]))
        forest = RandomForestClassifier(n_estimators=1, bootstrap=False, random_state=0).fit(rows, [0, 0, 0, 1])
        parts = {
            bundles.FEATURES_FILE: (place / bundles.FEATURES_FILE).read_bytes(),
            MODEL_FILE: treelite.sklearn.import_model(forest).serialize_bytes(),
            bundles.GOLDEN_FILE: msgspec.json.encode((bundles.GoldenVector(indices=(), values=(), outputs=(0.25,)),)),
        }
        manifest |= {
            "version": "2.0.0",
            "parts": {name: msgspec.to_builtins(bundles.describe_part(each)) for name, each in parts.items()},
        }
        if self._case.swap == "other-name":
            manifest["score_name"] = "ANOTHER"
        content = json.dumps(manifest).encode()
        (place / bundles.MANIFEST_FILE).write_bytes(content)
        if self._case.swap != "half-copied":
            for name, each in parts.items():
                (place / name).write_bytes(each)
        return bundles.sha256_hex(content)

    async def _others_answer(self, run: Run) -> None:
        for app in run.apps:
            answer = await app.infer(model="anemia", **filled_in(REQUEST, run.values))
            run.answers.append(answer)
            run.expect(answer.status_code == 200, f"expected the other model to answer, got {answer.status_code}")


def _requests(run: Run, wave: int) -> list[dict[str, Any]]:
    request = filled_in({**REQUEST, **run.case.request}, run.values)
    return [{**request, "eventTime": _instant(run, wave, number).isoformat()} for number in range(run.case.at_once)]


def _instant(run: Run, wave: int, number: int) -> Any:
    """Give the instant that a request is about: later waves are about earlier ones, so that none is in the future."""
    return parse_instant(REQUEST["eventTime"]) - timedelta(seconds=wave * run.case.at_once + number)


async def _under_way(upstream: Any) -> None:
    """Let others work until the EMR is being asked."""
    async with asyncio.timeout(_LONGEST_S):
        while len(upstream.calls) < _SOME:  # noqa: ASYNC110 the scripted EMR tells nobody that it was called
            await asyncio.sleep(0)


async def _looked_again() -> None:
    """Wait until whoever looks for new versions is done."""
    for thread in threading.enumerate():
        if thread.name == LOOKER:
            await asyncio.to_thread(thread.join, _LONGEST_S)


def _spoil(file: Path, how: str) -> None:
    content = file.read_bytes()
    match how:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case _:
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _bomb() -> bytes:
    """Give 10 MB that unpack to 10 GB: a pickle of that many zero bytes, compressed as joblib reads it."""
    size = 10 << 30
    packer = zlib.compressobj(9)
    start = packer.compress(b"\x80\x04\x8e" + size.to_bytes(8, "little")) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same million zeros are the same bytes, as often as one likes.
    packer.compress(bytes(1 << 20))
    packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + again * (size >> 20)
