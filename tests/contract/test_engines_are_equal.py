"""The contract of the product: the set engine, on every backend, and the reference engine give the same bits.

Hospitals of a few patients are made out of a few codes, units, values and instants, so that everything collides:
results on bin edges and next to them, facts at both ends of a window and a microsecond off, results released at the
very instant of the order, two results of one specimen, facts with several codes or none, units that convert, that are
spelled otherwise and that nobody knows, results without a number. For each hospital both engines compute every row, and
every row must be equal to the bit. Hypothesis searches for the smallest hospital that breaks this; a large one, drawn
from the same things, goes through every backend.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deployr_core.codes import LOINC, OMB_RACE_ETHNICITY, Code
from deployr_core.declared import (
    Analyte,
    CountKind,
    EdgeBins,
    FixedCodes,
    MappedCode,
    MappedCodes,
    PrefixGrouping,
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
from deployr_core.features import (
    AgeGroup,
    DiagnosisGroup,
    EthnicityGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    SexGroup,
    VisitGroup,
    VitalGroup,
)
from deployr_core.layout import layout_of
from deployr_core.vectorize import vectorize
from deployr_dev.backends import Backend, DbApi, DuckDb, PostgreSql, Spark
from deployr_dev.feature_table import (
    FeatureTableInvalid,
    compute_features,
    read_feature_table,
    write_feature_table,
)
from deployr_dev.lookups import Instant

NOON = datetime(2015, 6, 15, 12, 0, 0, tzinfo=UTC)
DAY, SECOND, TICK = timedelta(days=1), timedelta(seconds=1), timedelta(microseconds=1)
ICD, DRUG, PROC = "urn:test:icd", "urn:test:drug", "urn:test:proc"
HCT, HCT_TOO, HR = Code(LOINC, "4544-3"), Code(LOINC, "20570-8"), Code(LOINC, "8867-4")


def _code_group(name: str, kind: Any, codes: FixedCodes, **more: Any) -> Any:
    systems = tuple({code.system for code in codes.codes}) if "systems" not in more else more.pop("systems")
    return kind(name=name, systems=systems, codes=codes, lookback_days=more.pop("lookback_days", 30), **more)


ATC = MappedCodes(
    name="atc",
    sha256="0" * 64,
    codes=(MappedCode(DRUG, "1", "A"), MappedCode(DRUG, "2", "A"), MappedCode(DRUG, "3", "B")),
)
SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        AgeGroup(bins=EdgeBins(edges=(18, 40, 65))),
        SexGroup(),
        RaceGroup(categories=("2106-3", "2054-5")),
        RaceGroup(
            name="race_groups",
            categories=("one", "other"),
            grouping=MappedCodes(
                name="race",
                sha256="0" * 64,
                codes=(
                    MappedCode(OMB_RACE_ETHNICITY, "2106-3", "one"),
                    MappedCode(OMB_RACE_ETHNICITY, "2054-5", "one"),
                    MappedCode(OMB_RACE_ETHNICITY, "2028-9", "other"),
                ),
            ),
        ),
        EthnicityGroup(
            categories=("hispanic",),
            grouping=MappedCodes(
                name="eth", sha256="0" * 64, codes=(MappedCode(OMB_RACE_ETHNICITY, "2135-2", "hispanic"),)
            ),
        ),
        _code_group(
            "problems",
            DiagnosisGroup,
            FixedCodes(codes=(Code(ICD, "I480"), Code(ICD, "E11"))),
            grouping=PrefixGrouping(length=4),
            recorded_in=(DiagnosisList.PROBLEM_LIST,),
        ),
        _code_group(
            "all_diagnoses",
            DiagnosisGroup,
            FixedCodes(codes=(Code(ICD, "I48.0"),)),
            count=CountKind.BINARY,
            recorded_in=tuple(DiagnosisList),
            lookback_days=3,
        ),
        _code_group("drugs", MedicationGroup, FixedCodes(codes=(Code(DRUG, "1"), Code(DRUG, "3")))),
        _code_group(
            "drug_classes",
            MedicationGroup,
            FixedCodes(codes=(Code(ATC.system, "A"), Code(ATC.system, "B")), weights=(1.1, math.log(7) + 1)),
            systems=(DRUG,),
            grouping=ATC,
            count=CountKind.TFIDF,
        ),
        _code_group("procedures", ProcedureGroup, FixedCodes(codes=(Code(PROC, "X"),)), lookback_days=2),
        _code_group("orders", OrderGroup, FixedCodes(codes=(Code(LOINC, "58410-2"),))),
        _code_group("visits", VisitGroup, FixedCodes(codes=(Code("urn:act", "IMP"),)), lookback_days=400),
        LabGroup(
            name="labs_2d",
            analytes=(
                Analyte(
                    system=HCT.system,
                    code=HCT.value,
                    name="Hematocrit",
                    unit="%",
                    also=(HCT_TOO,),
                    bins=EdgeBins(edges=(29, 35, 45)),
                ),
                Analyte(
                    system=LOINC,
                    code="2160-0",
                    name="Creatinine",
                    unit="mg/dL",
                    also=(Code("urn:local", "4544-3"),),
                    bins=EdgeBins(edges=()),
                ),
            ),
            statistics=tuple(Statistic),
            lookback_days=2,
        ),
        LabGroup(
            name="labs_14d",
            analytes=(
                Analyte(
                    system=HCT.system,
                    code=HCT.value,
                    name="Hematocrit",
                    unit="%",
                    bins=EdgeBins(edges=(35,)),
                    plausible=(29.0, 45.0),
                ),
            ),
            statistics=(Statistic.BINS, Statistic.MISSING),
            lookback_days=14,
        ),
        VitalGroup(
            name="vitals",
            analytes=(Analyte(system=HR.system, code=HR.value, name="Heart rate", unit="/min", plausible=(-3.5, 1e6)),),
            statistics=(Statistic.LAST, Statistic.SLOPE, Statistic.HOURS_SINCE, Statistic.MEAN),
            lookback_days=1,
        ),
    ),
)

# Both ends of every window, an instant off either way, and ordinary days between.
_OFFSETS = [
    -window * DAY + off
    for window in (0, 1, 2, 3, 14, 30, 400)
    for off in (timedelta(0), -TICK, TICK, -SECOND, timedelta(milliseconds=400))
]
_instants = st.sampled_from(
    [NOON + offset for offset in _OFFSETS] + [NOON - timedelta(hours=h) for h in (1, 5, 26, 70)]
)
_delays = st.sampled_from([timedelta(0), TICK, SECOND, timedelta(hours=1), DAY, -DAY])
_values = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.29, 0.35, 28.999999, 29.0, 35.0, 34.9999995, 45.0, 1e8, 1e9, 1e300, -3.5, 29.0000004]),
    st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda value: round(value, 4)),
)
_units = st.sampled_from(["%", "1", "L/L", "mg/dL", "umol/L", "/min", "", "furlong"])


def _facts(kind: Any, codes: Sequence[Code], **more: Any) -> st.SearchStrategy[Any]:
    def build(codes: tuple[Code, ...], at: datetime, delay: timedelta, rest: dict[str, Any]) -> Any:
        return kind(fact_id="", codes=codes, at=at, known_at=at + delay, **rest)

    chosen = st.lists(st.sampled_from(codes), max_size=3, unique=True).map(tuple)
    return st.builds(build, chosen, _instants, _delays, st.fixed_dictionaries(more))


def _numbered(facts: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    def number(found: list[Any]) -> tuple[Any, ...]:
        import msgspec

        return tuple(msgspec.structs.replace(fact, fact_id=str(i)) for i, fact in enumerate(found))

    return st.lists(facts, max_size=most).map(number)


BIRTH_DATES = [
    None,
    BirthDate(year=1950),
    BirthDate(year=1997, month=6, day=15),
    BirthDate(year=1997, month=6, day=16),
    BirthDate(year=1975, month=6),
    BirthDate(year=1996, month=2, day=29),
]
LAB_CODES = [HCT, HCT_TOO, Code(LOINC, "2160-0"), Code("urn:local", "4544-3")]
DIAGNOSIS_CODES = [Code(ICD, c) for c in ("I48.0", "I48.1", "I480", "E11", "R99")]
DRUG_CODES = [Code(DRUG, c) for c in "1234"]
_demographics = st.builds(
    Demographics,
    birth_date=st.sampled_from(BIRTH_DATES),
    sex=st.sampled_from(list(Sex)),
    races=st.lists(
        st.sampled_from([Code(OMB_RACE_ETHNICITY, c) for c in ("2106-3", "2054-5", "2028-9")]), max_size=2, unique=True
    ).map(tuple),
    ethnicities=st.lists(st.sampled_from([Code(OMB_RACE_ETHNICITY, "2135-2")]), max_size=1).map(tuple),
)
_patients = st.builds(
    PatientFacts,
    patient_id=st.just(""),
    demographics=_demographics,
    labs=_numbered(_facts(Lab, LAB_CODES, value=_values, unit=_units), 8),
    vitals=_numbered(_facts(Vital, [HR, Code(LOINC, "9279-1")], value=_values, unit=_units), 5),
    diagnoses=_numbered(
        _facts(
            Diagnosis,
            DIAGNOSIS_CODES,
            recorded_in=st.sampled_from(list(DiagnosisList)),
        ),
        5,
    ),
    medications=_numbered(_facts(Medication, DRUG_CODES), 5),
    procedures=_numbered(_facts(Procedure, [Code(PROC, "X"), Code(PROC, "Y")]), 3),
    orders=_numbered(
        _facts(Order, [Code(LOINC, "58410-2")], encounter_id=st.none(), status=st.just(OrderStatus.OPEN)), 3
    ),
    visits=_numbered(_facts(Visit, [Code("urn:act", "IMP"), Code("urn:act", "AMB")]), 3),
)
_hospitals = st.lists(_patients, min_size=1, max_size=3)
_as_of = st.lists(
    st.sampled_from([NOON, NOON - TICK, NOON + timedelta(milliseconds=700), NOON - DAY]), min_size=1, max_size=3
)


def fact_tables(patients: Mapping[int, PatientFacts]) -> dict[str, pa.Table]:
    """Give the fact tables of docs/fact-tables.md, as far as features read them."""
    ts, text, number = pa.timestamp("us"), pa.string(), pa.float64()

    def rows(name: str, *more: str) -> list[tuple[Any, ...]]:
        return [
            (
                who,
                fact.fact_id,
                *(code or (None, None)),
                *(getattr(fact, column) for column in more),
                fact.at.replace(tzinfo=None),
                fact.known_at.replace(tzinfo=None),
            )
            for who, facts in patients.items()
            for fact in getattr(facts, name)
            for code in fact.codes or (None,)
        ]

    def table(found: list[tuple[Any, ...]], **columns: pa.DataType) -> pa.Table:
        return pa.table(
            {name: pa.array([row[i] for row in found], kind) for i, (name, kind) in enumerate(columns.items())}
        )

    head = {"person_id": pa.int64(), "fact_id": text, "system": text, "code": text}
    tail = {"happened_at": ts, "known_at": ts}
    tables = {
        "persons": table(
            [
                (
                    who,
                    *((b.year, b.month, b.day) if (b := facts.demographics.birth_date) else (None,) * 3),
                    facts.demographics.sex.value,
                )
                for who, facts in patients.items()
            ],
            person_id=pa.int64(),
            birth_year=pa.int32(),
            birth_month=pa.int32(),
            birth_day=pa.int32(),
            sex=text,
        ),
        "person_categories": table(
            [
                (who, kind, code.system, code.value)
                for who, facts in patients.items()
                for kind, code in chain(
                    (("race", c) for c in facts.demographics.races),
                    (("ethnicity", c) for c in facts.demographics.ethnicities),
                )
            ],
            person_id=pa.int64(),
            kind=text,
            system=text,
            code=text,
        ),
        "diagnoses": table(
            [(*r[:4], str(r[4]), *r[5:]) for r in rows("diagnoses", "recorded_in")], **head, recorded_in=text, **tail
        ),
    }
    for name in ("labs", "vitals"):
        tables[name] = table(rows(name, "value", "unit"), **head, value=number, unit=text, **tail)
    for name in ("medications", "procedures", "orders", "visits"):
        tables[name] = table(rows(name), **head, **tail)
    return tables


Load = Callable[[dict[str, pa.Table]], Backend]


@pytest.fixture
def on_duckdb() -> Iterator[Load]:
    connection = duckdb.connect()

    def load(tables: dict[str, pa.Table]) -> Backend:
        for name, content in tables.items():
            connection.register("content", content)
            connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM content")  # noqa: S608 our own names
            connection.unregister("content")
        return DuckDb(connection, threads=1)

    yield load
    connection.close()


def assert_equal_to_the_bit(load: Load, hospital: Sequence[PatientFacts], instants: Sequence[datetime]) -> None:
    patients = dict(enumerate(hospital, start=1))
    cohort = [
        Instant(row_id=number, person_id=who, as_of=as_of)
        for number, (who, as_of) in enumerate((who, as_of) for who in patients for as_of in instants)
    ]

    table = compute_features(load(fact_tables(patients)), SPEC, cohort)

    names = layout_of(SPEC).names
    for row, found in zip(cohort, table.matrix.vectors, strict=True):
        expected = vectorize(patients[row.person_id], SPEC, row.as_of)
        assert _readable(names, found) == _readable(names, expected)
        assert found == expected  # to the bit


def _readable(names: Sequence[str], vector: Any) -> dict[str, float]:
    return {names[i]: float(v) for i, v in zip(vector.indices, vector.values, strict=True)}


_check = settings(
    max_examples=60,
    derandomize=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@_check
@given(hospital=_hospitals, instants=_as_of)
def test_duckdb_gives_the_bits_of_the_reference_engine(
    on_duckdb: Load, hospital: list[PatientFacts], instants: list[datetime]
) -> None:
    assert_equal_to_the_bit(on_duckdb, hospital, instants)


def hospital_full_of_collisions(*, patients: int, seed: int) -> tuple[list[PatientFacts], list[datetime]]:
    """Give many patients who have many facts each, nearly all of them on some edge."""
    rng = np.random.default_rng(seed)
    edges = [NOON - days * DAY + off for days in (0, 1, 2) for off in (timedelta(0), -TICK, TICK)]
    instants_of = {Lab: [*edges, NOON - SECOND, NOON - timedelta(hours=30)]}
    everywhere = [NOON + offset for offset in _OFFSETS]

    def pick(things: Sequence[Any]) -> Any:
        return things[int(rng.integers(len(things)))]

    def some(things: Sequence[Any], most: int) -> tuple[Any, ...]:
        return tuple(things[i] for i in rng.permutation(len(things))[: int(rng.integers(most + 1))])

    def facts(kind: Any, codes: Sequence[Code], most: int, **more: Sequence[Any]) -> tuple[Any, ...]:
        found = []
        for number in range(int(rng.integers(most + 1))):
            at = pick(instants_of.get(kind, everywhere))
            known_at = at + pick([timedelta(0), TICK, SECOND, timedelta(hours=1), timedelta(hours=-30)])
            rest = {name: pick(options) for name, options in more.items()}
            found.append(kind(fact_id=str(number), codes=some(codes, 3), at=at, known_at=known_at, **rest))
        return tuple(found)

    values = [0.29, 0.35, 28.999999, 29.0, 35.0, 34.9999995, 45.0, 44.0, 36.1, None, 1e9]
    races = [Code(OMB_RACE_ETHNICITY, code) for code in ("2106-3", "2054-5", "2028-9")]
    hospital = [
        PatientFacts(
            patient_id="",
            demographics=Demographics(
                birth_date=pick(BIRTH_DATES),
                sex=pick(list(Sex)),
                races=some(races, 2),
                ethnicities=some([Code(OMB_RACE_ETHNICITY, "2135-2")], 1),
            ),
            labs=facts(Lab, LAB_CODES, 14, value=values, unit=["%", "%", "1", "L/L", "umol/L", "mg/dL", "furlong"]),
            vitals=facts(Vital, [HR], 6, value=[60.0, 61.5, 80.0, None], unit=["/min", ""]),
            diagnoses=facts(Diagnosis, DIAGNOSIS_CODES, 8, recorded_in=list(DiagnosisList)),
            medications=facts(Medication, DRUG_CODES, 8),
            procedures=facts(Procedure, [Code(PROC, "X"), Code(PROC, "Y")], 4),
            orders=facts(Order, [Code(LOINC, "58410-2")], 4, encounter_id=[None], status=[OrderStatus.OPEN]),
            visits=facts(Visit, [Code("urn:act", "IMP"), Code("urn:act", "AMB")], 4),
        )
        for _ in range(patients)
    ]
    return hospital, [NOON, NOON - TICK, NOON + timedelta(milliseconds=700)]


@pytest.mark.parametrize("seed", range(3))
def test_a_hospital_full_of_collisions_has_the_same_bits_on_duckdb(on_duckdb: Load, seed: int) -> None:
    hospital, instants = hospital_full_of_collisions(patients=300, seed=seed)

    assert_equal_to_the_bit(on_duckdb, hospital, instants)


def test_postgresql_gives_the_bits_of_the_reference_engine(postgres_folder: Path) -> None:
    import psycopg

    with psycopg.connect(host=str(postgres_folder), user="deployr", dbname="postgres") as connection:

        def load(tables: dict[str, pa.Table]) -> Backend:
            for name, content in tables.items():
                columns = ", ".join(f"{field.name} {PostgreSql.TYPES[field.type]}" for field in content.schema)
                connection.execute(f"CREATE TABLE {name} ({columns})")
                with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                    for row in zip(*(column.to_pylist() for column in content.columns), strict=True):
                        copy.write_row(row)
            return PostgreSql(connection)

        hospital, instants = hospital_full_of_collisions(patients=120, seed=7)
        assert_equal_to_the_bit(load, hospital, instants)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_spark_gives_the_bits_of_the_reference_engine() -> None:
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not on this machine")
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.timestampType", "TIMESTAMP_NTZ")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config("spark.buffer.pageSize", "1m")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    try:

        def load(tables: dict[str, pa.Table]) -> Backend:
            for name, content in tables.items():
                session.createDataFrame(content).createOrReplaceTempView(name)
            return Spark(session)

        hospital, instants = hospital_full_of_collisions(patients=120, seed=7)
        assert_equal_to_the_bit(load, hospital, instants)
    finally:
        session.stop()


def test_any_db_api_driver_gives_the_bits_of_the_reference_engine() -> None:
    """DuckDB's own connection speaks DB-API: it stands in for the drivers of warehouses that cannot be had here."""
    connection = duckdb.connect()

    def load(tables: dict[str, pa.Table]) -> Backend:
        for name, content in tables.items():
            connection.register("content", content)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM content")  # noqa: S608 our own names
            connection.unregister("content")
        return DbApi(connection, dialect="duckdb", paramstyle="qmark")

    hospital, instants = hospital_full_of_collisions(patients=40, seed=11)
    assert_equal_to_the_bit(load, hospital, instants)
    assert {name for (name,) in connection.execute("SHOW TABLES").fetchall()} == set(fact_tables({}))
    connection.close()


class _SqlServer:
    """Remembers what a SQL Server connection would be asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def cursor(self) -> _SqlServer:
        return self

    def execute(self, sql: str) -> None:
        self.asked.append(sql)

    def executemany(self, sql: str, rows: list[Any]) -> None:
        self.asked.append(f"{sql} -- {len(rows)} rows")

    def fetchmany(self, _: int) -> list[Any]:
        return []

    def close(self) -> None:
        self.asked.append("closed")


def test_on_sql_server_the_small_tables_are_temporary_and_the_fact_tables_are_not() -> None:
    server = _SqlServer()

    compute_features(
        DbApi(server, dialect="tsql", paramstyle="qmark"), SPEC, [Instant(row_id=1, person_id=1, as_of=NOON)]
    )

    query = next(sql for sql in server.asked if sql.startswith("WITH"))
    assert "#cohort" in query
    assert "#feature_codes" in query
    assert "#labs" not in query
    assert " labs AS f" in query
    assert "INSERT INTO #cohort VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) -- 1 rows" in server.asked
    assert server.asked[-1] == "closed"
    assert server.asked[-5:-1] == [
        f"DROP TABLE #{name}" for name in ("cohort", "feature_codes", "feature_units", "feature_tests")
    ]


def test_a_feature_table_survives_its_file(on_duckdb: Load, tmp_path: Path) -> None:
    hospital, instants = hospital_full_of_collisions(patients=120, seed=7)
    patients = dict(enumerate(hospital, start=1))
    cohort = [Instant(row_id=who, person_id=who, as_of=instants[0]) for who in patients]
    table = compute_features(on_duckdb(fact_tables(patients)), SPEC, cohort)

    digest = write_feature_table(table, tmp_path / "features.parquet")

    again = read_feature_table(tmp_path / "features.parquet")
    assert again.digest() == digest == table.digest()
    assert again.matrix.spec == SPEC
    assert np.array_equal(again.matrix.csr().toarray(), table.matrix.csr().toarray())
    assert again.matrix.csr().shape == (len(hospital), len(layout_of(SPEC).names))


def test_a_table_with_another_value_than_its_digest_names_is_refused(on_duckdb: Load, tmp_path: Path) -> None:
    hospital, instants = hospital_full_of_collisions(patients=3, seed=1)
    patients = dict(enumerate(hospital, start=1))
    cohort = [Instant(row_id=who, person_id=who, as_of=instants[0]) for who in patients]
    file = tmp_path / "features.parquet"
    write_feature_table(compute_features(on_duckdb(fact_tables(patients)), SPEC, cohort), file)
    content = pq.read_table(file)
    changed = content.set_column(2, "value", pa.array([*content["value"].to_pylist()[:-1], 99.0]))
    pq.write_table(changed.replace_schema_metadata(content.schema.metadata), file)

    with pytest.raises(FeatureTableInvalid, match=r"features\.parquet: expected the content that its digest names"):
        read_feature_table(file)


def test_a_file_that_is_no_feature_table_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"PAR1 but not really")

    with pytest.raises(FeatureTableInvalid, match=r"x\.parquet: expected a feature table"):
        read_feature_table(file)


def test_rows_come_in_the_order_of_their_ids_and_rows_without_features_are_there(on_duckdb: Load) -> None:
    nobody = PatientFacts(patient_id="", demographics=Demographics(birth_date=None, sex=Sex.UNKNOWN))
    patients = {7: nobody}
    cohort = [Instant(row_id=row, person_id=7, as_of=NOON) for row in (5, 3, 9)]

    table = compute_features(on_duckdb(fact_tables(patients)), SPEC, cohort)

    assert table.row_ids.tolist() == [3, 5, 9]
    missing = [name for name in layout_of(SPEC).names if name.endswith("/missing")]
    assert table.matrix.csr().sum() == 3 * len(missing)
