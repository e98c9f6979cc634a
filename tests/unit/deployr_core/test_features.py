from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deployr_core.codes import ICD9CM, ICD10CM, Code
from deployr_core.declared import EdgeBins, FixedCodes, LearnedCodes, QuantileBins
from deployr_core.features import AgeGroup, DeclarationInvalid, FeatureSpec, json_schema, parse_feature_spec

SHIPPED = sorted((Path(__file__).parents[3] / "deployr_dev" / "declarations").glob("*.json"))

AGE = {"kind": "age", "bins": {"kind": "edges", "edges": [18, 65]}}
SEX = {"kind": "sex"}
RACE = {"kind": "race", "categories": ["2106-3"]}
ETHNICITY = {"kind": "ethnicity", "categories": ["2135-2"]}
DIAGNOSES = {
    "kind": "diagnoses",
    "name": "problem_list",
    "recorded_in": ["problem-list-item"],
    "systems": [ICD10CM],
    "codes": {"kind": "codes", "codes": [[ICD10CM, "I48"]]},
    "lookback_days": 365,
    "grouping": {"kind": "prefix", "length": 3},
    "count": "binary",
}
MEDICATIONS = {
    "kind": "medications",
    "name": "drugs",
    "systems": ["http://www.nlm.nih.gov/research/umls/rxnorm"],
    "codes": {"kind": "learned", "min_patients": 5},
    "lookback_days": 30,
}
LABS = {
    "kind": "labs",
    "name": "labs",
    "analytes": [
        {
            "system": "http://loinc.org",
            "code": "4544-3",
            "name": "Hematocrit",
            "unit": "%",
            "bins": {"kind": "quantiles", "n": 5},
        },
        {"system": "http://loinc.org", "code": "718-7", "name": "Hb", "unit": "g/dL", "bins": None},
    ],
    "statistics": ["last", "missing"],
    "lookback_days": 14,
}
EVERYTHING = {"schema_version": 1, "groups": [AGE, SEX, RACE, ETHNICITY, DIAGNOSES, MEDICATIONS, LABS]}

Change = Callable[[dict[str, Any]], Any]


def changed(change: Change) -> dict[str, Any]:
    declaration = copy.deepcopy(EVERYTHING)
    change(declaration)
    return declaration


def group(name: str) -> int:
    return [each["kind"] for each in EVERYTHING["groups"]].index(name)


def put(path: str, value: object) -> Change:
    """Set the value at ``kind.key.key``, or at ``.key`` of the declaration itself."""

    def change(declaration: dict[str, Any]) -> None:
        kind, *keys = path.split(".")
        place: Any = declaration["groups"][group(kind)] if kind else declaration
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        place[keys[-1]] = value

    return change


def drop(path: str) -> Change:
    def change(declaration: dict[str, Any]) -> None:
        kind, *keys = path.split(".")
        place: Any = declaration["groups"][group(kind)] if kind else declaration
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        del place[keys[-1]]

    return change


def parse(declaration: object) -> FeatureSpec:
    return parse_feature_spec(json.dumps(declaration))


WRONG_SHAPE = {
    "misspelt key of the declaration": (put(".gruops", []), "`gruops`", "unknown field"),
    "misspelt key of a group": (put("diagnoses.lookback_dayz", 30), "`$.groups[4]`", "`lookback_dayz`"),
    "misspelt key of bins": (put("age.bins.edgez", []), "`$.groups[0].bins`", "`edgez`"),
    "misspelt key of a wish": (put("medications.codes.min_patient", 3), "`$.groups[5].codes`", "`min_patient`"),
    "misspelt key of an analyte": (put("labs.analytes.1.units", "%"), "`$.groups[6].analytes[1]`", "`units`"),
    "missing key of the declaration": (drop(".schema_version"), "`schema_version`", "missing"),
    "missing key of a group": (drop("medications.lookback_days"), "`$.groups[5]`", "`lookback_days`"),
    "missing key of an analyte": (drop("labs.analytes.0.unit"), "`$.groups[6].analytes[0]`", "`unit`"),
    "missing kind": (drop("sex.kind"), "`$.groups[1]`", "`kind`"),
    "unknown kind": (put("sex.kind", "gender"), "`$.groups[1].kind`", "gender"),
    "text for a number": (put("labs.lookback_days", "14"), "`$.groups[6].lookback_days`", "`str`"),
    "half a day": (put("labs.lookback_days", 14.5), "`$.groups[6].lookback_days`", "`int`"),
    "true for a number": (put(".schema_version", True), "`$.schema_version`", "`bool`"),
    "a code for a list of them": (put("race.categories", "2106-3"), "`$.groups[2].categories`", "`array`"),
    "null for a name": (put("labs.name", None), "`$.groups[6].name`", "`null`"),
    "unknown statistic": (put("labs.statistics", ["median"]), "`$.groups[6].statistics[0]`", "median"),
    "unknown list": (put("diagnoses.recorded_in", ["billing"]), "`$.groups[4].recorded_in[0]`", "billing"),
    "unknown way to count": (put("diagnoses.count", "log"), "`$.groups[4].count`", "log"),
    "an edge that is no number": (put("age.bins.edges", [18, None]), "`$.groups[0].bins.edges[1]`", "`null`"),
}
IMPOSSIBLE_VALUE = {
    "another schema_version": (put(".schema_version", 2), "schema_version 1, got 2"),
    "no group": (put(".groups", []), "at least one feature group"),
    "the same name twice": (put("medications.name", "labs"), "each group name once"),
    "a default name used again": (put("labs.name", "sex"), "each group name once"),
    "an empty name": (put("labs.name", ""), "lower_snake_case"),
    "a name in capitals": (put("labs.name", "Labs"), "lower_snake_case"),
    "a name that begins with a digit": (put("labs.name", "7_days"), "lower_snake_case"),
    "a name with a slash": (put("labs.name", "labs/all"), "lower_snake_case"),
    "a name that ends in a newline": (put("labs.name", "labs\n"), "lower_snake_case"),
    "a name of 65 characters": (put("labs.name", "l" * 65), "lower_snake_case"),
    "edges in descending order": (put("age.bins.edges", [65, 18]), "ascending order"),
    "an edge twice": (put("age.bins.edges", [18, 18]), "ascending order, each once"),
    "no day of look-back": (put("labs.lookback_days", 0), "'labs' from 1 to 36500"),
    "a look-back into the future": (put("labs.lookback_days", -1), "'labs' from 1 to 36500"),
    "a look-back of over 100 years": (put("medications.lookback_days", 36_501), "'drugs' from 1 to 36500"),
    "one quantile": (put("labs.analytes.0.bins.n", 1), "2 to 100 quantile bins"),
    "101 quantiles": (put("labs.analytes.0.bins.n", 101), "2 to 100 quantile bins"),
    "a code twice": (put("diagnoses.codes.codes", [[ICD10CM, "I48"], [ICD10CM, "I48"]]), "each code once"),
    "codes of no patient": (put("medications.codes.min_patients", 0), "min_patients and at_most"),
    "room for no code": (put("medications.codes.at_most", 0), "min_patients and at_most"),
    "bins that are counted but not declared": (put("labs.statistics", ["bins"]), "bins for every analyte of 'labs'"),
    "an analyte twice": (put("labs.analytes.1.code", "4544-3"), "each analyte of 'labs' once"),
}
AT_THE_LIMIT = {
    "a look-back of one day": put("labs.lookback_days", 1),
    "a look-back of 100 years": put("labs.lookback_days", 36_500),
    "two quantiles": put("labs.analytes.0.bins.n", 2),
    "100 quantiles": put("labs.analytes.0.bins.n", 100),
    "a name of 64 characters": put("labs.name", "l" * 64),
    "a name of one letter": put("labs.name", "l"),
    "no edge": put("age.bins.edges", []),
    "codes of one patient": put("medications.codes.min_patients", 1),
    "no code": put("diagnoses.codes.codes", []),
}


def test_a_declaration_reads_as_it_is_written() -> None:
    spec = parse(EVERYTHING)
    assert [each.name for each in spec.groups] == [
        "age",
        "sex",
        "race",
        "ethnicity",
        "problem_list",
        "drugs",
        "labs",
    ]
    assert spec.groups[0] == AgeGroup(bins=EdgeBins(edges=(18.0, 65.0)))
    assert spec.groups[5].codes == LearnedCodes(min_patients=5, at_most=2000)
    assert spec.groups[6].analytes[0].bins == QuantileBins(n=5)


@pytest.mark.parametrize("broken", WRONG_SHAPE)
def test_a_declaration_of_the_wrong_shape_is_refused_with_the_place(broken: str) -> None:
    change, place, complaint = WRONG_SHAPE[broken]
    with pytest.raises(DeclarationInvalid) as refused:
        parse(changed(change))
    assert place in str(refused.value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("broken", IMPOSSIBLE_VALUE)
def test_a_value_that_cannot_be_is_refused(broken: str) -> None:
    change, complaint = IMPOSSIBLE_VALUE[broken]
    with pytest.raises(DeclarationInvalid) as refused:
        parse(changed(change))
    assert complaint in str(refused.value)


@pytest.mark.parametrize("example", AT_THE_LIMIT)
def test_the_limits_themselves_are_allowed(example: str) -> None:
    assert parse(changed(AT_THE_LIMIT[example])).schema_version == 1


@pytest.mark.parametrize("edge", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_edge_that_is_not_finite_is_refused(edge: str) -> None:
    source = json.dumps({"schema_version": 1, "groups": [AGE]}).replace("18", edge)
    with pytest.raises(DeclarationInvalid):
        parse_feature_spec(source)


@pytest.mark.parametrize("edge", [float("nan"), float("inf"), float("-inf")])
def test_an_edge_that_is_not_finite_is_refused_when_made_in_python(edge: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        EdgeBins(edges=(edge,))


@pytest.mark.parametrize("source", [b"", b"{", b"null", b"[]", b"\xff\xfe{}", b'{"schema_version":1,"groups":"\xff"}'])
def test_what_is_not_a_json_object_is_refused(source: bytes) -> None:
    with pytest.raises(DeclarationInvalid, match="feature declaration: "):
        parse_feature_spec(source)


def test_text_and_bytes_read_the_same() -> None:
    assert parse_feature_spec(json.dumps(EVERYTHING)) == parse_feature_spec(json.dumps(EVERYTHING).encode())


MISTAKES = {
    "no character of a code": (put("diagnoses.grouping.length", 0), "prefix of at least 1 character"),
    "all but the last character": (put("diagnoses.grouping.length", -1), "prefix of at least 1 character"),
    "a statistic twice": (put("labs.statistics", ["last", "last"]), "each statistic of 'labs' once"),
    "a race twice": (put("race.categories", ["2106-3", "2106-3"]), "each category of 'race' once"),
    "a sex that no patient can have": (put("sex.categories", ["femal"]), "femal"),
    "a group of 5 characters where codes are cut to 3": (
        put("diagnoses.codes.codes", [[ICD10CM, "I48.0"]]),
        "at most 3 characters",
    ),
    "a code of a system that does not count": (put("diagnoses.codes.codes", [[ICD9CM, "427"]]), "of its systems"),
    "a system twice": (put("medications.systems", ["urn:local", "urn:local"]), "each system of 'drugs' once"),
    "a group with a dot": (put("diagnoses.codes.codes", [[ICD10CM, "I4."]]), "without dots"),
    "quantiles of age": (put("age.bins", {"kind": "quantiles", "n": 5}), "kind edges in 'age'"),
    "bins of one label": (put("age.bins.edges", [1.0, 1.0000000000000002, 1.0000000000000004]), "first 12 digits"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_declaration_that_can_only_be_a_mistake_is_refused(mistake: str) -> None:
    change, complaint = MISTAKES[mistake]
    with pytest.raises(DeclarationInvalid) as refused:
        parse(changed(change))
    assert complaint in str(refused.value)


def test_two_edges_that_read_alike_are_refused() -> None:
    with pytest.raises(DeclarationInvalid, match="first 12 digits"):
        parse(changed(put("age.bins.edges", [1.0, 1.0000000000000002])))


def test_a_key_that_is_there_twice_is_refused() -> None:
    source = json.dumps(EVERYTHING).replace('"lookback_days": 365', '"lookback_days": 365, "lookback_days": 30')
    with pytest.raises(DeclarationInvalid):
        parse_feature_spec(source)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(json_schema())
    return Draft202012Validator(json_schema())


def test_the_json_schema_accepts_what_the_parser_accepts(schema: Draft202012Validator) -> None:
    for change in AT_THE_LIMIT.values():
        schema.validate(changed(change))
    schema.validate(EVERYTHING)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_parser_and_json_schema_accept_every_shipped_declaration(file: Path, schema: Draft202012Validator) -> None:
    schema.validate(json.loads(file.read_bytes()))
    assert parse_feature_spec(file.read_bytes()).groups


@pytest.mark.parametrize("broken", WRONG_SHAPE)
def test_the_json_schema_refuses_a_wrong_shape_as_the_parser_does(broken: str, schema: Draft202012Validator) -> None:
    change, *_ = WRONG_SHAPE[broken]
    assert not schema.is_valid(changed(change))


def test_the_json_schema_takes_what_the_canonical_bytes_say(schema: Draft202012Validator) -> None:
    schema.validate(json.loads(parse(EVERYTHING).to_json()))


def test_the_parser_asks_for_the_kind_of_bins_as_the_json_schema_does(schema: Draft202012Validator) -> None:
    declaration = changed(drop("age.bins.kind"))
    assert not schema.is_valid(declaration)
    with pytest.raises(DeclarationInvalid):
        parse(declaration)


def test_what_is_to_be_learned_is_named() -> None:
    spec = parse(EVERYTHING)
    assert spec.unfitted() == ("drugs", "labs/4544-3")
    assert not spec.is_fitted


def test_a_declaration_without_wishes_is_fitted() -> None:
    spec = parse({"schema_version": 1, "groups": [AGE, SEX, RACE, ETHNICITY, DIAGNOSES]})
    assert spec.unfitted() == ()
    assert spec.is_fitted


def test_the_longest_lookback_is_that_of_the_widest_window() -> None:
    assert parse(EVERYTHING).longest_lookback() == timedelta(days=365)


def test_a_declaration_without_windows_looks_back_not_at_all() -> None:
    assert parse({"schema_version": 1, "groups": [AGE, SEX]}).longest_lookback() == timedelta(0)


@pytest.mark.parametrize(
    ("edges", "labels"),
    [
        ((), ("(-inf,inf)",)),
        ((35.0,), ("(-inf,35)", "[35,inf)")),
        ((35.0, 47.0), ("(-inf,35)", "[35,47)", "[47,inf)")),
        ((-0.5, 1e-7, 1e20), ("(-inf,-0.5)", "[-0.5,1e-07)", "[1e-07,1e+20)", "[1e+20,inf)")),
    ],
)
def test_n_edges_make_n_plus_1_bins_that_include_their_start(edges: tuple[float, ...], labels: tuple[str, ...]) -> None:
    assert EdgeBins(edges=edges).labels() == labels


def test_canonical_bytes_have_sorted_keys_and_no_spaces() -> None:
    spec = parse({"groups": [{"bins": {"edges": [18], "kind": "edges"}, "kind": "age"}], "schema_version": 1})
    assert spec.to_json() == (
        b'{"groups":[{"bins":{"edges":[18.0],"kind":"edges"},"kind":"age","name":"age"}],"schema_version":1}'
    )


def test_the_digest_is_the_sha256_of_the_canonical_bytes() -> None:
    spec = parse(EVERYTHING)
    assert spec.digest() == hashlib.sha256(spec.to_json()).hexdigest()


def test_layout_of_the_file_does_not_change_the_digest_and_meaning_does() -> None:
    spec = parse(EVERYTHING)
    assert parse_feature_spec(json.dumps(EVERYTHING, indent=8, sort_keys=True)).digest() == spec.digest()
    assert parse(changed(put("labs.lookback_days", 15))).digest() != spec.digest()


def test_a_parsed_declaration_keeps_its_digest_through_its_own_bytes() -> None:
    spec = parse(EVERYTHING)
    assert parse_feature_spec(spec.to_json()) == spec
    assert parse_feature_spec(spec.to_json()).digest() == spec.digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((18,), (18.0,), id="integer and float"),
        pytest.param((-0.0,), (0.0,), id="both zeros"),
    ],
)
def test_equal_declarations_have_the_same_digest(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    specs = [
        FeatureSpec(schema_version=1, groups=(AgeGroup(name="digest_test", bins=EdgeBins(edges=edges)),))
        for edges in (one, other)
    ]
    assert specs[0] == specs[1]
    assert specs[0].digest() == specs[1].digest()


def test_fixed_codes_keep_their_order_and_read_back_as_codes() -> None:
    codes = tuple(Code(ICD10CM, value) for value in "ZAM")
    declared = [[ICD10CM, value] for value in "ZAM"]
    group = parse(changed(put("diagnoses.codes.codes", declared))).groups[4]
    assert group.codes == FixedCodes(codes=codes)
    assert all(type(code) is Code for code in group.codes.codes)
