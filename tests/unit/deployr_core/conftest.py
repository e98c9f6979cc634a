"""Small builders: each shows only what a test is about, the rest is ordinary.

The index time is 23:55 in Kathmandu, where the offset is 5 h 45 min: a slip into local time shows at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    Estimate,
    Evaluation,
    GoldenVector,
    Manifest,
    Task,
    Training,
    describe_part,
)
from deployr_core.codes import ICD10CM, LOINC, RXNORM, Code
from deployr_core.declared import (
    Analyte,
    CountKind,
    EdgeBins,
    FixedCodes,
    Grouping,
    MappedCode,
    MappedCodes,
    Statistic,
)
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Lab,
    Medication,
    Order,
    OrderStatus,
    PatientFacts,
    Procedure,
    Sex,
    Visit,
    Vital,
)
from deployr_core.features import AgeGroup, DiagnosisGroup, FeatureSpec, Group, LabGroup, MedicationGroup, VitalGroup
from deployr_core.label_rules import LabComponent
from deployr_core.layout import layout_of
from deployr_core.model_format import MODEL_FILE
from deployr_core.outputs import BINARY
from deployr_core.scoring import TreeEnsemble
from deployr_core.vectorize import FeatureVector, vectorize


class Make:
    """Facts, declarations and rows around one index time."""

    as_of = datetime.fromisoformat("2015-01-06T23:55:00+05:45").astimezone(UTC)
    hematocrit = Code(LOINC, "4544-3")
    yesterday = as_of - timedelta(days=1)

    _made = 0

    def _fact_id(self) -> str:
        Make._made += 1
        return f"fact-{Make._made}"

    def lab(
        self,
        value: float | None = 36.6,
        *,
        unit: str = "%",
        codes: tuple[Code, ...] = (hematocrit,),
        at: datetime = yesterday,
        known_at: datetime | None = None,
        fact_id: str | None = None,
        **more: Any,
    ) -> Lab:
        return Lab(
            fact_id=fact_id or self._fact_id(),
            codes=codes,
            at=at,
            known_at=known_at or at,
            value=value,
            unit=unit,
            **more,
        )

    def diagnosis(
        self,
        *values: str,
        system: str = ICD10CM,
        at: datetime = yesterday,
        known_at: datetime | None = None,
        recorded_in: DiagnosisList = DiagnosisList.PROBLEM_LIST,
    ) -> Diagnosis:
        return Diagnosis(
            fact_id=self._fact_id(),
            codes=tuple(Code(system, value) for value in values or ("I48.0",)),
            at=at,
            known_at=known_at or at,
            recorded_in=recorded_in,
        )

    def medication(
        self, *values: str, system: str = RXNORM, at: datetime = yesterday, known_at: datetime | None = None
    ) -> Medication:
        return Medication(
            fact_id=self._fact_id(),
            codes=tuple(Code(system, value) for value in values or ("11289",)),
            at=at,
            known_at=known_at or at,
        )

    def vital(
        self,
        value: float | None = 36.6,
        *,
        unit: str = "%",
        codes: tuple[Code, ...] = (hematocrit,),
        at: datetime = yesterday,
        known_at: datetime | None = None,
    ) -> Vital:
        return Vital(fact_id=self._fact_id(), codes=codes, at=at, known_at=known_at or at, value=value, unit=unit)

    def procedure(self, *values: str, at: datetime = yesterday, known_at: datetime | None = None) -> Procedure:
        return Procedure(fact_id=self._fact_id(), codes=self.local(*values), at=at, known_at=known_at or at)

    def order(
        self,
        *values: str,
        at: datetime = yesterday,
        known_at: datetime | None = None,
        status: OrderStatus = OrderStatus.OPEN,
    ) -> Order:
        return Order(
            fact_id=self._fact_id(),
            codes=self.local(*values),
            at=at,
            known_at=known_at or at,
            encounter_id=None,
            status=status,
        )

    def visit(self, *values: str, at: datetime = yesterday, known_at: datetime | None = None) -> Visit:
        return Visit(fact_id=self._fact_id(), codes=self.local(*values), at=at, known_at=known_at or at)

    def local(self, *values: str) -> tuple[Code, ...]:
        """Give codes of the local system, ``A`` unless told."""
        return tuple(Code("urn:local", value) for value in values or ("A",))

    def mapping(self, group_of: Mapping[str, str], *, system: str = ICD10CM, name: str = "ccs") -> MappedCodes:
        """Give a mapping of one system's codes to groups."""
        codes = tuple(MappedCode(system, code, group) for code, group in group_of.items())
        return MappedCodes(name=name, sha256="0" * 64, codes=codes)

    def patient(
        self,
        *,
        birth_date: BirthDate | None = None,
        sex: Sex = Sex.UNKNOWN,
        races: tuple[Code, ...] = (),
        ethnicities: tuple[Code, ...] = (),
        labs: tuple[Lab, ...] = (),
        diagnoses: tuple[Diagnosis, ...] = (),
        medications: tuple[Medication, ...] = (),
        **more: Any,
    ) -> PatientFacts:
        who = Demographics(birth_date=birth_date, sex=sex, races=races, ethnicities=ethnicities)
        return PatientFacts(
            patient_id="patient-1", demographics=who, labs=labs, diagnoses=diagnoses, medications=medications, **more
        )

    def spec(self, *groups: Group) -> FeatureSpec:
        return FeatureSpec(schema_version=1, groups=groups)

    def edges(self, *edges: float) -> EdgeBins:
        return EdgeBins(edges=tuple(float(edge) for edge in edges))

    def age_group(self, *edges: float) -> AgeGroup:
        return AgeGroup(bins=self.edges(*edges))

    def analyte(self, *edges: float, code: str = "4544-3", unit: str = "%") -> Analyte:
        return Analyte(system=LOINC, code=code, name="", unit=unit, bins=self.edges(*edges) if edges else None)

    def lab_group(self, *statistics: str, analytes: tuple[Analyte, ...] = (), lookback_days: int = 30) -> LabGroup:
        return LabGroup(
            name="labs",
            analytes=analytes or (self.analyte(35, 47),),
            statistics=tuple(Statistic(name) for name in statistics),
            lookback_days=lookback_days,
        )

    def vital_group(self, *statistics: str, lookback_days: int = 30) -> VitalGroup:
        return VitalGroup(
            name="vitals",
            analytes=(self.analyte(35, 47),),
            statistics=tuple(Statistic(name) for name in statistics),
            lookback_days=lookback_days,
        )

    def diagnosis_group(
        self,
        *codes: str,
        grouping: Grouping | None = None,
        count: CountKind = CountKind.COUNT,
        systems: tuple[str, ...] = (ICD10CM,),
        fixed: FixedCodes | None = None,
        recorded_in: tuple[DiagnosisList, ...] = (DiagnosisList.PROBLEM_LIST,),
        lookback_days: int = 30,
    ) -> DiagnosisGroup:
        return DiagnosisGroup(
            name="problem_list",
            recorded_in=recorded_in,
            systems=systems,
            codes=fixed or FixedCodes(codes=tuple(Code(systems[0], value) for value in codes or ("I48.0",))),
            lookback_days=lookback_days,
            grouping=grouping,
            count=count,
        )

    def medication_group(
        self, *codes: str, count: CountKind = CountKind.COUNT, lookback_days: int = 30
    ) -> MedicationGroup:
        return MedicationGroup(
            name="drugs",
            systems=(RXNORM,),
            codes=FixedCodes(codes=tuple(Code(RXNORM, value) for value in codes or ("11289",))),
            lookback_days=lookback_days,
            count=count,
        )

    def row(self, facts: PatientFacts, *groups: Group, as_of: datetime = as_of) -> dict[str, float]:
        """Give the features that are not 0, by name."""
        spec = self.spec(*groups)
        vector = vectorize(facts, spec, as_of)
        names = layout_of(spec).names
        return {names[i]: value for i, value in zip(vector.indices, vector.values.tolist(), strict=True)}

    def vector(self, row: Any) -> FeatureVector:
        """Give a dense row as the vector that stands for it."""
        row = np.asarray(row, dtype=np.float64)
        indices = np.flatnonzero(row).astype(np.int32)
        return FeatureVector(spec_digest="unused", size=row.size, indices=indices, values=row[indices], coverage={})


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """A bundle as files. ``changed`` gives it with other parts, described anew so that every digest is right."""

    manifest: Manifest
    parts: Mapping[str, bytes]

    def changed(self, *, manifest: Mapping[str, Any] | None = None, **parts: bytes) -> Shipment:
        files = {**self.parts, **{_FILE_OF[name]: content for name, content in parts.items()}}
        described = {name: describe_part(content) for name, content in files.items()}
        return Shipment(
            manifest=msgspec.structs.replace(self.manifest, **{"parts": described, **(manifest or {})}), parts=files
        )

    def golden(self) -> GoldenVector:
        (vector,) = msgspec.json.decode(self.parts[GOLDEN_FILE], type=tuple[GoldenVector, ...])
        return vector

    def with_golden(self, **changes: Any) -> Shipment:
        """Give it with a golden vector that may be impossible."""
        vector = {**msgspec.to_builtins(self.golden()), **changes}
        return self.changed(golden=msgspec.json.encode([vector]))


_FILE_OF = {"features": FEATURES_FILE, "model": MODEL_FILE, "golden": GOLDEN_FILE}


@pytest.fixture(scope="session")
def shipment(make: Make) -> Shipment:
    """A forest over three age bins and the last hematocrit, with one golden vector."""
    import treelite
    from sklearn.ensemble import RandomForestClassifier

    spec = make.spec(make.age_group(40, 65), make.lab_group("last", analytes=(make.analyte(),)))
    rng = np.random.default_rng(20150106)
    rows = np.column_stack([np.eye(3)[rng.integers(0, 3, 60)], rng.normal(38, 6, 60)])
    forest = RandomForestClassifier(7, min_samples_leaf=3, random_state=1).fit(rows, rows[:, 3] < 36)
    checkpoint = treelite.sklearn.import_model(forest).serialize_bytes()
    golden_row = [0.0, 1.0, 0.0, 36.6]
    score = TreeEnsemble(checkpoint, n_features=4).score(make.vector(golden_row))
    parts = {
        FEATURES_FILE: spec.to_json(),
        MODEL_FILE: checkpoint,
        GOLDEN_FILE: msgspec.json.encode((GoldenVector(indices=(1, 3), values=(1.0, 36.6), outputs=(score,)),)),
    }
    manifest = Manifest(
        schema_version=3,
        model_id="hematocrit",
        version="1.0.0",
        task=Task(
            name="abnormal hematocrit",
            unit="order",
            index_time="signed",
            label="outside the reference range",
            rule=LabComponent(components=("4544-3",), window_hours=24),
            panels=("58410-2",),
            outputs=BINARY,
        ),
        score_name="DEPLOYR_HCT",
        n_features=4,
        spec_sha256=spec.digest(),
        parts={name: describe_part(content) for name, content in parts.items()},
        training=Training(
            estimator="RandomForestClassifier",
            parameters={"n_estimators": 7, "max_depth": None},
            rows=60,
            patients=60,
            label_means={"positive": 0.4},
            snapshot_sha256="0" * 64,
            library_versions={"treelite": treelite.__version__},
        ),
        evaluation=Evaluation(
            rows=20,
            patients=20,
            label_means={"positive": 0.4},
            figures={"auroc": Estimate(value=0.8, low=0.7, high=0.9)},
        ),
    )
    return Shipment(manifest=manifest, parts=parts)
