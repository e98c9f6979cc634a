"""`deployr parity` as a person runs it: a bundle, an extract, and the same hospital over FHIR."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.parity import run_parity
from deployr_core import bundle as bundles
from deployr_dev.parity import ParityReport
from deployr_dev.parity_kinds import CauseKind
from mock_emr.emr import FHIR_ROOT
from mock_emr.hosting import listening
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop
from mock_emr.serve import create_app

ORDERS = 40


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with omop/ and fhir/ of the same 40 invented patients."""
    folder = tmp_path_factory.mktemp("hospital")
    population = generate(PopulationConfig(patients=40, weeks=6))
    write_omop(population, folder / "omop")
    write_fhir(population, folder / "fhir")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, bundle_files: dict[str, bytes]) -> Path:
    """Give a bundle for orders of any blood count."""
    folder = tmp_path_factory.mktemp("bundles") / "hematocrit"
    folder.mkdir()
    for name, content in bundle_files.items():
        (folder / name).write_bytes(content)
    manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    task = msgspec.structs.replace(manifest.task, panels=("58410-2", "57021-8", "57782-5"))
    (folder / bundles.MANIFEST_FILE).write_bytes(msgspec.structs.replace(manifest, task=task).to_json())
    return folder


@pytest.fixture
def parity(bundle: Path, hospital: Path) -> Callable[..., tuple[ParityReport, str]]:
    """Give a function that runs the command, and gives its report and what it printed."""

    def run(
        *, source: Path | str = hospital / "omop", fhir: Path | str = hospital / "fhir", **options: Any
    ) -> tuple[ParityReport, str]:
        console = Console(file=io.StringIO(), width=200)
        chosen = {"sample": ORDERS, "json_file": None, "seed": 1, **options}
        report = run_parity(bundle, str(source), str(fhir), console=console, **chosen)
        return report, console.file.getvalue()  # type: ignore[attr-defined]

    return run


def changed_copy(folder: Path, to: Path, kind: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Path:
    """Copy a folder of NDJSON with each resource of a kind changed; None leaves it out."""
    shutil.copytree(folder, to)
    (file,) = to.glob(f"{kind}*.ndjson.gz")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        made = [change(json.loads(line)) for line in lines]
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.writelines(f"{json.dumps(resource)}\n" for resource in made if resource)
    return to


def test_the_same_hospital_is_equal_in_every_feature(parity, tmp_path):
    file = tmp_path / "parity.json"
    report, printed = parity(json_file=file)

    assert report.orders == ORDERS
    assert report.features_equal == report.features_compared == ORDERS * 6
    assert (report.differences, report.causes) == ((), ())
    assert report.score is not None
    assert report.score.orders_equal == ORDERS
    assert report.score.labelled > 0
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["features_equal"] == written["features_compared"] == ORDERS * 6
    assert written["groups"]["labs"] == {"compared": ORDERS * 2, "equal": ORDERS * 2}
    assert written["auroc_lost"] in {None, 0.0}
    assert "100 %" in printed
    assert "0 decisions flipped" in printed


def test_the_same_seed_gives_the_same_report(parity):
    assert parity(sample=10)[0].to_json() == parity(sample=10)[0].to_json()


def test_a_sample_that_is_larger_than_what_there_is_takes_all(parity):
    assert 0 < parity(sample=100_000)[0].orders < 100_000


def test_a_mapping_with_the_wrong_time_zone_is_found_and_the_right_one_suggested(parity, hospital, tmp_path):
    omop = tmp_path / "omop"
    shutil.copytree(hospital / "omop", omop)
    (omop / "source.json").write_text('{"name": "site", "extends": "deployr_synthetic", "time_zone": "UTC"}')

    report, printed = parity(source=omop)

    assert report.features_equal < report.features_compared
    assert CauseKind.TIME_ZONE in {cause.kind for cause in report.causes if cause.group == "labs"}
    assert report.mapping_patch == {"time_zone": "-05:00"}
    assert '"time_zone": "-05:00"' in printed


def test_results_that_the_emr_does_not_give_are_found_as_a_missing_group(parity, hospital, tmp_path):
    fhir = changed_copy(hospital / "fhir", tmp_path / "fhir", "Observation", lambda _: None)
    report, printed = parity(fhir=fhir)

    assert [(cause.kind, cause.group) for cause in report.causes] == [(CauseKind.MISSING_GROUP, "labs")]
    assert "missing-group in labs: the EMR has nothing of this group" in printed
    assert report.score is not None
    assert (report.score.labelled, report.score.auroc_lost) == (0, None)
    assert "AUROC: not measurable on 0 orders" in printed


def test_codes_that_only_one_side_has_are_named(parity, hospital, tmp_path):
    def everybody_has_it(resource: dict[str, Any]) -> dict[str, Any]:
        coding = {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "310325"}
        return {**resource, "medicationCodeableConcept": {"coding": [coding]}}

    fhir = changed_copy(hospital / "fhir", tmp_path / "fhir", "MedicationRequest", everybody_has_it)
    report, printed = parity(fhir=fhir)

    (difference,) = report.differences
    assert difference.feature == "drugs/310325"
    assert difference.emr_larger == difference.orders > 0
    assert "only in the EMR: code http://www.nlm.nih.gov/research/umls/rxnorm|310325 of drugs" in printed


def test_results_a_hundredfold_are_found_as_a_unit_factor(parity, hospital, tmp_path):
    def as_fraction(resource: dict[str, Any]) -> dict[str, Any]:
        if "valueQuantity" in resource and resource["code"]["coding"][0]["code"] == "4544-3":
            resource["valueQuantity"]["value"] /= 100
        return resource

    fhir = changed_copy(hospital / "fhir", tmp_path / "fhir", "Observation", as_fraction)
    report, printed = parity(fhir=fhir)

    assert [(cause.kind, cause.group) for cause in report.causes] == [(CauseKind.UNIT_FACTOR, "labs")]
    assert "0.01 times the warehouse's" in printed


# -- a server


@contextlib.contextmanager
def open_server(folder: Path) -> Iterator[str]:
    """Run an open EMR, as of now, in a thread of its own; gives its FHIR base."""
    ready: list[str] = []
    listens, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with listening(lambda url: create_app(folder, open_access=True, base_url=url)) as url:
            ready.append(url + FHIR_ROOT)
            listens.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert listens.wait(30)
    try:
        yield ready[0]
    finally:
        done.set()
        thread.join(30)


def test_a_server_that_shows_everything_at_once_gives_the_same_features(parity, hospital):
    with open_server(hospital / "fhir") as base:
        report, _ = parity(fhir=base)

    assert report.orders > 20
    assert report.features_equal == report.features_compared == report.orders * 6


def test_a_server_that_knows_none_of_the_patients_is_said_in_one_line(parity, hospital, tmp_path):
    def strange(resource: dict[str, Any]) -> dict[str, Any]:
        return {**resource, "identifier": [{"system": "urn:x", "value": f"x-{resource['id']}"}]}

    fhir = changed_copy(hospital / "fhir", tmp_path / "fhir", "Patient", strange)
    with pytest.raises(CommandFailed, match="identifiers are in the warehouse"):
        parity(fhir=fhir)
    with open_server(fhir) as base, pytest.raises(CommandFailed, match="identifiers are in the warehouse"):
        parity(fhir=base)


# -- what cannot be compared


def test_a_server_that_does_not_answer_is_said_in_one_line(parity):
    with pytest.raises(CommandFailed, match="did not give what was asked"):
        parity(fhir="http://127.0.0.1:9/fhir")


@pytest.mark.parametrize("sample", [0, -1])
def test_a_sample_of_nothing_is_refused(parity, sample):
    with pytest.raises(CommandFailed, match="at least 1 order"):
        parity(sample=sample)


def test_a_folder_that_is_none_is_refused(parity, tmp_path):
    with pytest.raises(CommandFailed, match="expected a FHIR base URL"):
        parity(fhir=tmp_path / "nothing")
