"""Groupings, weights, other codes of a test, and the kinds of group that count other things than diagnoses."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from deployr_core.codes import ICD9CM, ICD10CM, LOINC, OMB_RACE_ETHNICITY, Code
from deployr_core.declared import (
    Analyte,
    CountKind,
    FixedCodes,
    LearnedCodes,
    MappedCode,
    MappedCodes,
    MappingFile,
    PrefixGrouping,
    Statistic,
)
from deployr_core.features import (
    DeclarationInvalid,
    EthnicityGroup,
    FeatureSpec,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    SexGroup,
    VisitGroup,
    VitalGroup,
    json_schema,
    parse_feature_spec,
)
from deployr_core.layout import SpecNotFitted, layout_of

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

LOCAL = "urn:local"
CCS = "urn:deployr:group:ccs"
MAPPING_FILE = {"kind": "mapping-file", "name": "ccs", "path": "ccs.csv"}
MAPPED = {
    "kind": "mapped",
    "name": "ccs",
    "sha256": "0" * 64,
    "codes": [[LOCAL, "A1", "alpha"], [LOCAL, "A2", "alpha"], [LOCAL, "B1", "beta"]],
}
CODES = {"kind": "codes", "codes": [[LOCAL, "A"], [LOCAL, "B"]]}
GROUPED = {"kind": "codes", "codes": [[CCS, "beta"], [CCS, "alpha"]]}


def code_group(kind: str, **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "name": kind, "systems": [LOCAL], "codes": CODES, "lookback_days": 7, **changes}


def hemoglobin(code: str = "718-7", **changes: Any) -> dict[str, Any]:
    return {"system": LOINC, "code": code, "name": "", "unit": "g/dL", **changes}


def result_group(kind: str, *analytes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": kind,
        "analytes": list(analytes) or [hemoglobin()],
        "statistics": ["last"],
        "lookback_days": 7,
        **changes,
    }


VALID = {
    "procedures": code_group("procedures"),
    "orders": code_group("orders"),
    "visits": code_group("visits"),
    "vitals": result_group("vitals"),
    "every statistic but bins": result_group("labs", statistics=[s.value for s in Statistic if s != "bins"]),
    "other codes of the same test": result_group("labs", hemoglobin(also=[[LOCAL, "HB"], [LOINC, "20509-6"]])),
    "no other code": result_group("labs", hemoglobin(also=[])),
    "binary": code_group("procedures", count="binary"),
    "prefix of one character": code_group("procedures", grouping={"kind": "prefix", "length": 1}),
    "no grouping, said so": code_group("procedures", grouping=None),
    "mapped": code_group("procedures", grouping=MAPPED, codes=GROUPED),
    "mapped, to be learned": code_group("procedures", grouping=MAPPED, codes={"kind": "learned"}),
    "mapping file": code_group("procedures", grouping=MAPPING_FILE, codes={"kind": "learned"}),
    "tfidf": code_group("visits", count="tfidf", codes={**CODES, "weights": [1, 2.5]}),
    "tfidf of no code": code_group("visits", count="tfidf", codes={"kind": "codes", "codes": []}),
    "tfidf to be learned": code_group("visits", count="tfidf", codes={"kind": "learned"}),
    "tfidf, mapped": code_group("visits", count="tfidf", grouping=MAPPED, codes={**GROUPED, "weights": [1.5, 1]}),
    "race by mapping": {"kind": "race", "categories": ["alpha"], "grouping": MAPPED},
    "race by mapping file": {"kind": "race", "categories": ["alpha"], "grouping": MAPPING_FILE},
    "ethnicity by mapping": {"kind": "ethnicity", "categories": ["alpha"], "grouping": MAPPED},
    "ethnicity by mapping file": {"kind": "ethnicity", "categories": ["alpha"], "grouping": MAPPING_FILE},
}
WRONG_SHAPE = {
    "unknown grouping": (code_group("visits", grouping={"kind": "suffix", "length": 3}), "suffix"),
    "the old way to say it": (code_group("visits", prefix_length=3), "`prefix_length`"),
    "a grouping that is a number": (code_group("visits", grouping=3), "`$.groups[0].grouping`"),
    "a prefix without a length": (code_group("visits", grouping={"kind": "prefix"}), "`length`"),
    "a mapping file without a path": (code_group("visits", grouping={"kind": "mapping-file", "name": "x"}), "`path`"),
    "a mapping without its digest": (
        code_group("visits", grouping={"kind": "mapped", "name": "x", "codes": []}),
        "`sha256`",
    ),
    "a mapped code without a group": (
        code_group("visits", codes={"kind": "learned"}, grouping={**MAPPED, "codes": [[LOCAL, "A1"]]}),
        "`$.groups[0].grouping.codes[0]`",
    ),
    "a mapped code with a fourth field": (
        code_group("visits", codes={"kind": "learned"}, grouping={**MAPPED, "codes": [[LOCAL, "A1", "x", "y"]]}),
        "`$.groups[0].grouping.codes[0]`",
    ),
    "race by prefix": ({"kind": "race", "categories": [], "grouping": {"kind": "prefix", "length": 3}}, "prefix"),
    "sex by mapping": ({"kind": "sex", "grouping": MAPPED}, "`grouping`"),
    "labs by mapping": (result_group("labs", grouping=MAPPED), "`grouping`"),
    "another code that is text": (result_group("labs", hemoglobin(also=["HB"])), "`$.groups[0].analytes[0].also[0]`"),
    "another code without a system": (
        result_group("labs", hemoglobin(also=[["HB"]])),
        "`$.groups[0].analytes[0].also[0]`",
    ),
    "weights of learned codes": (
        code_group("visits", count="tfidf", codes={"kind": "learned", "weights": [1]}),
        "`weights`",
    ),
    "a weight that is text": (code_group("visits", count="tfidf", codes={**CODES, "weights": ["1", 2]}), "weights[0]"),
    "lists of procedures": (code_group("procedures", recorded_in=["problem-list-item"]), "`recorded_in`"),
    "diagnoses without a list": (code_group("diagnoses"), "`recorded_in`"),
}
IMPOSSIBLE_VALUE = {
    "a prefix of no character": (
        code_group("visits", grouping={"kind": "prefix", "length": 0}),
        "at least 1 character",
    ),
    "tfidf without weights": (code_group("visits", count="tfidf"), "weights in 'visits' if, and only if,"),
    "weights without tfidf": (code_group("visits", codes={**CODES, "weights": [1, 2]}), "if, and only if,"),
    "weights of binary": (code_group("visits", count="binary", codes={**CODES, "weights": [1, 2]}), "if, and only if,"),
    "too few weights": (code_group("visits", count="tfidf", codes={**CODES, "weights": [1]}), "as many weights as"),
    "too many weights": (
        code_group("visits", count="tfidf", codes={**CODES, "weights": [1] * 3}),
        "as many weights as",
    ),
    "weights of no code": (
        code_group("visits", count="tfidf", codes={"kind": "codes", "codes": [], "weights": [1]}),
        "as many weights as",
    ),
    "a weight of 0": (code_group("visits", count="tfidf", codes={**CODES, "weights": [1, 0]}), "weights above 0"),
    "a weight below 0": (code_group("visits", count="tfidf", codes={**CODES, "weights": [1, -1]}), "weights above 0"),
    "a mapped code twice": (
        code_group("visits", grouping={**MAPPED, "codes": [[LOCAL, "A1", "alpha"], [LOCAL, "A1", "beta"]]}),
        "each code of the mapping 'ccs' once",
    ),
    "a group that the mapping has not": (
        code_group("visits", grouping=MAPPED, codes={"kind": "codes", "codes": [[CCS, "gamma"]]}),
        "groups of its mapping",
    ),
    "codes that are mapped, instead of groups": (
        code_group("visits", grouping=MAPPED, codes={"kind": "codes", "codes": [[LOCAL, "A1"]]}),
        "groups of its mapping",
    ),
    "a group of another mapping": (
        code_group("visits", grouping=MAPPED, codes={"kind": "codes", "codes": [["urn:deployr:group:atc", "alpha"]]}),
        "of its mapping's groups",
    ),
    "the main code again": (result_group("labs", hemoglobin(also=[[LOINC, "718-7"]])), "each code of '' once"),
    "another code twice": (result_group("labs", hemoglobin(also=[[LOCAL, "HB"]] * 2)), "each code of '' once"),
    "another code that two analytes have": (
        result_group("labs", hemoglobin(also=[[LOCAL, "HB"]]), hemoglobin("20509-6", also=[[LOCAL, "HB"]])),
        "each analyte of 'labs' once",
    ),
    "another code that is another analyte": (
        result_group("vitals", hemoglobin(also=[[LOINC, "20509-6"]]), hemoglobin("20509-6")),
        "each analyte of 'vitals' once",
    ),
    "bins of vitals that are counted but not declared": (
        result_group("vitals", statistics=["bins"]),
        "bins for every analyte of 'vitals'",
    ),
    "a statistic of vitals twice": (
        result_group("vitals", statistics=["slope"] * 2),
        "each statistic of 'vitals' once",
    ),
    **{
        f"a look-back of {days} days of {kind}": (
            {**(result_group(kind) if kind == "vitals" else code_group(kind)), "lookback_days": days},
            f"lookback_days of '{kind}' from 1 to 36500",
        )
        for kind in ("procedures", "orders", "visits", "vitals")
        for days in (0, 36_501)
    },
}


def declaration(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({"schema_version": 1, "groups": [group]})


def parse(*groups: dict[str, Any]) -> FeatureSpec:
    return parse_feature_spec(json.dumps({"schema_version": 1, "groups": groups}))


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


@pytest.mark.parametrize("example", VALID)
def test_parser_and_json_schema_accept_what_can_be_declared(example: str, schema: Draft202012Validator) -> None:
    schema.validate(declaration(VALID[example]))
    spec = parse(VALID[example])
    schema.validate(json.loads(spec.to_json()))
    assert parse_feature_spec(spec.to_json()) == spec
    assert parse_feature_spec(spec.to_json()).digest() == spec.digest()


@pytest.mark.parametrize("broken", WRONG_SHAPE)
def test_parser_and_json_schema_refuse_a_wrong_shape(broken: str, schema: Draft202012Validator) -> None:
    group, complaint = WRONG_SHAPE[broken]
    assert not schema.is_valid(declaration(group))
    with pytest.raises(DeclarationInvalid) as refused:
        parse(group)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("broken", IMPOSSIBLE_VALUE)
def test_a_value_that_cannot_be_is_refused(broken: str) -> None:
    group, complaint = IMPOSSIBLE_VALUE[broken]
    with pytest.raises(DeclarationInvalid) as refused:
        parse(group)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(weight: float, make: Make) -> None:
    with pytest.raises(ValueError, match="weights above 0"):
        FixedCodes(codes=make.local("A"), weights=(weight,))


def test_the_kinds_are_read_as_what_they_are_called() -> None:
    spec = parse(*(VALID[kind] for kind in ("procedures", "orders", "visits", "vitals")))
    assert [type(group) for group in spec.groups] == [ProcedureGroup, OrderGroup, VisitGroup, VitalGroup]


def test_groupings_are_read_as_what_they_are_called() -> None:
    spec = parse(
        VALID["prefix of one character"], {**VALID["mapped"], "name": "m"}, {**VALID["mapping file"], "name": "f"}
    )
    assert [group.grouping for group in spec.groups] == [
        PrefixGrouping(length=1),
        MappedCodes(
            name="ccs",
            sha256="0" * 64,
            codes=(
                MappedCode(LOCAL, "A1", "alpha"),
                MappedCode(LOCAL, "A2", "alpha"),
                MappedCode(LOCAL, "B1", "beta"),
            ),
        ),
        MappingFile(name="ccs", path="ccs.csv"),
    ]


def test_each_fact_is_counted_and_nothing_grouped_unless_told() -> None:
    (group,) = parse(VALID["orders"]).groups
    assert (group.count, group.grouping, group.codes.weights) == (CountKind.COUNT, None, ())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sha256": "1" * 64}, id="the file's digest"),
        pytest.param({"codes": [*MAPPED["codes"], [LOCAL, "C1", "alpha"]]}, id="one more code"),
        pytest.param({"codes": [[LOCAL, "A1", "beta"], *MAPPED["codes"][1:]]}, id="a code in another group"),
    ],
)
def test_the_digest_covers_the_whole_mapping(changes: dict[str, Any]) -> None:
    group = VALID["mapped"]
    assert parse({**group, "grouping": {**MAPPED, **changes}}).digest() != parse(group).digest()


def test_the_digest_covers_weights_and_other_codes() -> None:
    weighted, other = VALID["tfidf"], VALID["other codes of the same test"]
    assert parse({**weighted, "codes": {**CODES, "weights": [1, 2.6]}}).digest() != parse(weighted).digest()
    assert parse(result_group("labs")).digest() != parse(other).digest()


def test_a_weight_of_1_and_of_1_0_have_the_same_digest() -> None:
    specs = [
        parse(code_group("visits", count="tfidf", codes={**CODES, "weights": weights}))
        for weights in ([1, 2], [1.0, 2.0])
    ]
    assert specs[0] == specs[1]
    assert specs[0].digest() == specs[1].digest()


def test_mapping_files_are_named_with_what_is_still_to_be_learned(make: Make) -> None:
    spec = parse(
        {**VALID["race by mapping file"], "name": "r"},
        {"kind": "sex"},
        {**VALID["ethnicity by mapping file"], "name": "e"},
        {**VALID["mapping file"], "name": "file_and_learned"},
        {**VALID["mapping file"], "name": "file_only", "codes": CODES},
        {**VALID["mapped"], "name": "nothing_left"},
        {**VALID["mapped, to be learned"], "name": "learned_only"},
        result_group("vitals", hemoglobin(bins={"kind": "quantiles", "n": 2})),
    )
    unfitted = ("r", "e", "file_and_learned", "file_only", "learned_only", "vitals/718-7")
    assert spec.unfitted() == unfitted
    assert not spec.is_fitted
    with pytest.raises(SpecNotFitted, match=", ".join(unfitted)):
        layout_of(spec)


def test_the_longest_lookback_is_of_any_kind_of_group() -> None:
    for kind in ("procedures", "orders", "visits", "vitals"):
        spec = parse(result_group("labs"), {**VALID[kind], "lookback_days": 40})
        assert spec.longest_lookback() == timedelta(days=40)


def test_the_main_code_is_the_first_of_an_analytes_codes() -> None:
    others = (Code(LOCAL, "HB"), Code(LOINC, "20509-6"))
    analyte = Analyte(system=LOINC, code="718-7", name="", unit="g/dL", also=others)
    assert analyte.keys == (Code(LOINC, "718-7"), *others)
    assert analyte.key == analyte.keys[0]


# Layout


def test_groups_of_a_mapping_are_named_by_themselves_in_the_declared_order() -> None:
    layout = layout_of(parse({"kind": "sex", "categories": ["male"]}, VALID["mapped"]))
    assert layout.names == ("sex/male", "procedures/beta", "procedures/alpha")
    assert layout.groups[1].columns == {Code(CCS, "beta"): 1, Code(CCS, "alpha"): 2}


def test_categories_of_a_mapping_are_named_by_themselves(make: Make) -> None:
    mapping = make.mapping({"2106-3": "white", "2054-5": "other"}, system=OMB_RACE_ETHNICITY)
    spec = make.spec(
        RaceGroup(categories=("other", "white"), grouping=mapping),
        EthnicityGroup(categories=("white",), grouping=mapping),
    )
    assert layout_of(spec).names == ("race/other", "race/white", "ethnicity/white")


def test_every_new_kind_has_its_features_in_the_declared_order() -> None:
    layout = layout_of(
        parse(
            *(VALID[kind] for kind in ("visits", "procedures", "orders")),
            result_group("vitals", statistics=["slope", "first", "hours_since"]),
        )
    )
    assert layout.names == (
        "visits/A",
        "visits/B",
        "procedures/A",
        "procedures/B",
        "orders/A",
        "orders/B",
        "vitals/718-7/slope",
        "vitals/718-7/first",
        "vitals/718-7/hours_since",
    )
    assert layout.groups_of == ("visits",) * 2 + ("procedures",) * 2 + ("orders",) * 2 + ("vitals",) * 3


def test_other_codes_of_a_test_add_no_feature() -> None:
    (labs,) = layout_of(parse(VALID["other codes of the same test"])).groups
    assert layout_of(parse(VALID["other codes of the same test"])).names == ("labs/718-7/last",)
    assert labs.reading.place_of == {Code(LOINC, "718-7"): 0, Code(LOCAL, "HB"): 0, Code(LOINC, "20509-6"): 0}


def test_a_weight_belongs_to_its_codes_column_and_is_1_where_none_is_declared() -> None:
    sex, weighted, plain = layout_of(parse({"kind": "sex"}, VALID["tfidf"], VALID["orders"])).groups
    assert type(sex.group) is SexGroup
    assert weighted.weights == {2: 1.0, 3: 2.5}
    assert plain.weights == {4: 1.0, 5: 1.0}


@pytest.mark.parametrize(
    ("code", "grouped"),
    [
        pytest.param(Code(ICD10CM, "I48.0"), Code(CCS, "af"), id="mapped"),
        pytest.param(Code(ICD10CM, "I48"), None, id="only a longer code is mapped"),
        pytest.param(Code(ICD10CM, "I480"), None, id="dots are not left out"),
        pytest.param(Code(ICD9CM, "I48.0"), None, id="the system does not count"),
        pytest.param(Code(CCS, "af"), None, id="already a group"),
    ],
)
def test_a_mapping_takes_codes_to_the_letter(make: Make, code: Code, grouped: Code | None) -> None:
    group = make.diagnosis_group(grouping=make.mapping({"I48.0": "af"}), fixed=FixedCodes(codes=()))
    (layout,) = layout_of(make.spec(group)).groups
    assert layout.code_groups.of(code) == grouped


def test_a_mapped_code_of_a_system_that_does_not_count_stays_out(make: Make) -> None:
    group = make.diagnosis_group(grouping=make.mapping({"427.31": "af"}, system=ICD9CM), fixed=FixedCodes(codes=()))
    (layout,) = layout_of(make.spec(group)).groups
    assert layout.code_groups.of(Code(ICD9CM, "427.31")) is None


def test_a_prefix_cuts_codes_of_the_systems_that_count_and_no_others(make: Make) -> None:
    group = make.diagnosis_group("I48", grouping=PrefixGrouping(length=3))
    (layout,) = layout_of(make.spec(group)).groups
    assert layout.code_groups.of(Code(ICD10CM, "I48.0")) == Code(ICD10CM, "I48")
    assert layout.code_groups.of(Code(ICD9CM, "I48.0")) is None


# Faults


def test_the_groups_of_a_mapping_file_can_be_declared_before_it_is_read() -> None:
    spec = parse(code_group("visits", grouping=MAPPING_FILE, codes=GROUPED))
    assert spec.unfitted() == ("visits",)


@pytest.mark.parametrize("kind", [RaceGroup, EthnicityGroup])
def test_a_category_that_its_mapping_has_not_is_refused(kind: type[RaceGroup | EthnicityGroup], make: Make) -> None:
    with pytest.raises(ValueError, match="groups of its mapping"):
        kind(categories=("whte",), grouping=make.mapping({"2106-3": "white"}))


def test_fitted_codes_are_checked_against_the_mapping_too(make: Make) -> None:
    (group,) = parse(VALID["mapped, to be learned"]).groups
    fixed = msgspec.structs.replace(group, codes=FixedCodes(codes=(Code(CCS, "beta"),)))
    assert isinstance(group.codes, LearnedCodes)
    with pytest.raises(ValueError, match="groups of its mapping"):
        msgspec.structs.replace(fixed, codes=FixedCodes(codes=(Code(CCS, "gamma"),)))
