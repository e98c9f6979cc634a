"""What the fault rows run on: keys and certificates, a bundle with readable features, and all that is said."""

from __future__ import annotations

import hashlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from deployr_core import bundle as bundles
from deployr_core.codes import ICD10CM, LOINC, RXNORM, Code
from deployr_core.declared import Analyte, EdgeBins, FixedCodes, Statistic
from deployr_core.facts import DiagnosisList
from deployr_core.features import AgeGroup, DiagnosisGroup, FeatureSpec, LabGroup, MedicationGroup, SexGroup
from deployr_core.layout import layout_of
from tests.faults.bed.pki import make_authority, make_keyring
from tests.faults.bed.rows import merged
from tests.faults.bed.running import Bed
from tests.json_callers import fault_values

_ANALYTES = (
    ("4544-3", "hematocrit", "%", (1.0, 90.0)),
    ("718-7", "hemoglobin", "g/dL", (1.0, 30.0)),
    ("2823-3", "potassium", "mmol/L", (0.5, 20.0)),
    ("6690-2", "leukocytes", "10*3/uL", None),
    ("2345-7", "glucose", "mg/dL", None),
)


@pytest.fixture(scope="session")
def readable_spec():
    """Give a declaration whose every feature can be read off the healthy patient's chart."""
    return FeatureSpec(
        schema_version=1,
        groups=(
            AgeGroup(bins=EdgeBins(edges=(18.0, 65.0))),
            SexGroup(),
            LabGroup(
                name="labs",
                analytes=tuple(
                    Analyte(system=LOINC, code=code, name=name, unit=unit, plausible=plausible)
                    for code, name, unit, plausible in _ANALYTES
                ),
                statistics=(Statistic.COUNT, Statistic.LAST),
                lookback_days=30,
            ),
            DiagnosisGroup(
                name="problem_list",
                recorded_in=(DiagnosisList.PROBLEM_LIST,),
                systems=(ICD10CM,),
                codes=FixedCodes(codes=(Code(ICD10CM, "D50.9"),)),
                lookback_days=365,
            ),
            MedicationGroup(
                name="drugs", systems=(RXNORM,), codes=FixedCodes(codes=(Code(RXNORM, "310325"),)), lookback_days=90
            ),
        ),
    )


@pytest.fixture(scope="session")
def readable_bundle(bundle_files, readable_spec):
    """Give a bundle of that declaration, which scores 1 / 2 whatever it sees: manifest, and its other files."""
    import treelite
    from sklearn.ensemble import RandomForestClassifier

    size = len(layout_of(readable_spec).names)
    forest = RandomForestClassifier(n_estimators=1, bootstrap=False, random_state=0).fit(np.zeros((2, size)), [0, 1])
    [golden, *_] = json.loads(bundle_files[bundles.GOLDEN_FILE])
    manifest = json.loads(bundle_files[bundles.MANIFEST_FILE])
    [model_file] = set(manifest["parts"]) - {bundles.FEATURES_FILE, bundles.GOLDEN_FILE}
    parts = {
        bundles.FEATURES_FILE: readable_spec.to_json(),
        model_file: treelite.sklearn.import_model(forest).serialize_bytes(),
        bundles.GOLDEN_FILE: json.dumps([{**golden, "indices": [], "values": [], "outputs": [0.5]}]).encode(),
    }
    described = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in parts.items()
    }
    manifest |= {"parts": described, "n_features": size, "spec_sha256": readable_spec.digest()}
    return SimpleNamespace(manifest=manifest, parts=parts)


class _Everything(logging.Handler):
    def __init__(self):
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture
def said(capfd):
    """Give a function that gives all that any logger said, at DEBUG, and all that was printed, since it was asked."""
    keeper, root = _Everything(), logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("aiohttp", "asyncio", "azure", "deployr_serve"))]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    root.addHandler(keeper)

    def since():
        lines, keeper.lines = keeper.lines, []
        out, err = capfd.readouterr()
        return "\n".join([*lines, out, err])

    yield since
    root.removeHandler(keeper)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def keyring(tmp_path_factory):
    return make_keyring(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def json_callers(tmp_path_factory):
    return fault_values(tmp_path_factory.mktemp("callers"))


@pytest.fixture
def bed(app_of, keyring, authority, json_callers, readable_bundle, readable_spec, said, tmp_path, request):
    """Give what `run_case` needs."""

    def bundles_of(changes):
        folder = tmp_path / "readable" / "hematocrit"
        folder.mkdir(parents=True, exist_ok=True)
        manifest = json.dumps(merged(readable_bundle.manifest, changes)).encode()
        for name, content in {**readable_bundle.parts, bundles.MANIFEST_FILE: manifest}.items():
            (folder / name).write_bytes(content)
        return folder.parent

    return Bed(
        app_of=app_of,
        keyring=keyring,
        authority=authority,
        bundles_of=bundles_of,
        names=layout_of(readable_spec).names,
        callers=json_callers,
        said=said,
        stand_ins=lambda: SimpleNamespace(
            address=request.getfixturevalue("cosmos_address"),
            blobs=request.getfixturevalue("azurite"),
            database=request.getfixturevalue("new_database")(),
            cosmos_of=request.getfixturevalue("cosmos_of"),
        ),
    )
