"""The papers: every item is answered by somebody who is named, or listed as missing, and nothing is invented."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from deployr_core.bundle import Estimate, parse_manifest
from deployr_core.features import parse_feature_spec
from deployr_core.governance.card import Card, card_json, papers_of
from deployr_core.governance.card_page import card_page
from deployr_core.governance.chai import NAMESPACE
from deployr_core.governance.chai_xml import NOT_STATED, chai_xml
from deployr_core.governance.facts import KNOWN_HOW, how_to_know
from deployr_core.governance.hti1 import HTI1
from deployr_core.governance.known import facts_of_run, facts_of_service, known_of
from deployr_core.governance.performance import GroupPerformance, Performance, Service
from deployr_core.governance.profile import Said, State, answers
from deployr_core.governance.profiles import PROFILES
from deployr_core.governance.statements import QUESTIONS, Statements, parse_statements, template
from deployr_core.strict_yaml import YamlInvalid
from tests.registry_parts import write_run

EVERY = [item for profile in PROFILES.values() for item in profile.items]
ASKED = sorted({fact for item in EVERY for fact in item.facts})
HALF = Estimate(value=0.5, low=0.25, high=0.75)
PERFORMANCE = Performance(
    rows=40,
    patients=20,
    positives=8,
    figures={"auroc": HALF, "calibration_slope": "one class only"},
    groups=(
        GroupPerformance(grouping="sex", name="female", rows=30, patients=15, auroc=HALF, gap=HALF),
        GroupPerformance(grouping="sex", name="male", rows=None, patients=None, auroc="under 20 rows", gap="too small"),
    ),
)
SERVICE = Service(
    days=30, requests=50, answered=HALF, ripe=44, labelled=HALF, observed=HALF, latency_ms=HALF, performance=PERFORMANCE
)


def card_of(known, *names, **changes):
    papers = papers_of([PROFILES[name] for name in names or PROFILES], known)
    return Card(model_id="m", run_id="m-1", bundle_sha256="a" * 64, known=known, papers=papers, **changes)


def a_run(folder, bundle_files, **changes):
    run = write_run(folder, bundle_files, **changes)
    bundle = folder / run.run_id / "bundle"
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    return run, manifest, parse_feature_spec((bundle / "features.json").read_bytes())


@pytest.fixture
def by_run(tmp_path, bundle_files):
    """Give what a run alone lets be known."""
    return known_of(facts_of_run(*a_run(tmp_path, bundle_files)))


@given(st.sets(st.sampled_from(ASKED)))
def test_every_item_of_every_profile_is_answered_with_a_source_or_its_missing_facts_are_listed(names):
    known = {name: Said(fact=name, lines=(f"said of {name}",), source="somebody") for name in names}
    for profile in PROFILES.values():
        told = answers(profile, known)
        assert [each.item for each in told] == list(profile.items)
        for each in told:
            assert [said.fact for said in each.said] == [fact for fact in each.item.facts if fact in names]
            assert all(said.source for said in each.said)
            assert list(each.missing) == [fact for fact in each.item.facts if fact not in names]
            assert each.said or each.missing
    assert set(card_of(known).missing) == set(ASKED) - names


def test_whatever_is_missing_can_be_told_how_to_know_and_nothing_is_asked_for_nothing():
    assert all(how_to_know(name) for name in ASKED)
    assert set(ASKED) == {*QUESTIONS, *KNOWN_HOW}


def test_the_31_source_attributes_stand_in_the_paragraphs_of_the_rule():
    assert len(HTI1.items) == 31
    paragraphs = Counter(item.number[: len("(B)(1)")] for item in HTI1.items)
    assert list(paragraphs.values()) == [4, 4, 2, 4, 2, 4, 5, 4, 2]
    by_number = {item.number: item.asked for item in HTI1.items}
    assert by_number["(B)(1)(ii)"] == (
        "Funding source of the technical implementation for the intervention(s) development"
    )
    assert by_number["(B)(7)(iii)"] == (
        "Validity of intervention in data external to or from a different source than the initial training data"
    )
    assert by_number["(B)(8)(iv)"] == "Fairness of intervention in local data"


def test_tripod_ai_has_its_27_items_in_52_parts():
    numbers = [item.number for item in PROFILES["tripod-ai"].items]
    assert len(numbers) == 52
    assert sorted({int(number.rstrip("abcdefg")) for number in numbers}) == list(range(1, 28))


def test_without_people_a_run_answers_nothing_that_only_people_know(by_run):
    assert not set(by_run) & set(QUESTIONS)
    missing = {each.item.number for each in answers(HTI1, by_run) if each.state is State.MISSING}
    # External validation, funding, intended use, cautions: nobody said any of it. Local figures: there is no extract.
    assert {"(B)(1)(i)", "(B)(1)(ii)", "(B)(2)(i)", "(B)(3)(ii)", "(B)(6)(i)", "(B)(7)(iii)", "(B)(8)(ii)"} <= missing
    assert by_run["held_out_validity"].lines == ("auroc 0.750 (0.500 to 1.000), on 8 held-out rows",)


@pytest.mark.parametrize(("split", "shares_none"), [(None, False), ("time", False), ("time+patient", True)])
def test_that_no_patient_is_on_both_sides_is_said_only_where_the_manifest_tells(
    tmp_path, bundle_files, split, shares_none
):
    training = parse_manifest(bundle_files["manifest.json"]).training
    parameters = {} if split is None else {"split": split}
    run, manifest, spec = a_run(
        tmp_path, bundle_files, training=msgspec.structs.replace(training, parameters=parameters)
    )
    lines = known_of(facts_of_run(run, manifest, spec))["splits"].lines
    assert any("share no patient" in line for line in lines) is shares_none


def test_what_people_say_stands_under_their_name(by_run):
    said = Statements(schema_version=1, said_by="Dr. Ada", answers={"funding": "The hospital\n\nNobody else"})
    known = known_of([*by_run.values(), *said.facts])
    funding = next(each for each in answers(HTI1, known) if each.item.number == "(B)(1)(ii)")
    assert funding.state is State.ANSWERED
    assert (funding.said[0].lines, funding.said[0].source) == (
        ("The hospital", "Nobody else"),
        "card.yaml, by Dr. Ada",
    )


def test_local_figures_come_of_the_extract_and_small_groups_are_not_counted(by_run):
    known = known_of([*by_run.values(), *facts_of_service(SERVICE)])
    assert known["local_validity"].lines[1:] == (
        "AUROC 0.500 (0.250 to 0.750)",
        "calibration slope not measurable: one class only",
    )
    assert known["local_groups"].lines == (
        "sex female: 15 patients, 30 rows",
        "sex male: not told, lest it tell of too few",
    )
    assert known_of(facts_of_service(replace(SERVICE, performance="no label"))).keys() == {"local_service"}
    of_nobody = replace(SERVICE, performance=replace(PERFORMANCE, groups=()))
    assert known_of(facts_of_service(of_nobody)).keys() == {"local_service", "local_validity"}


# Written down from the published schema, v0.2: what each element must hold, in which order; `?` marks the optional.
SCHEMA = {
    "AppliedModelCard": "BasicInfo ReleaseInfo ModelSummary UsesAndDirections Warnings TrustIngredients KeyMetrics"
    " Resources Bibliography",
    "BasicInfo": "ModelName ModelDeveloper DeveloperContact",
    "ReleaseInfo": "ReleaseStage ReleaseDate ReleaseVersion GlobalAvailability RegulatoryApproval?",
    "ModelSummary": "Summary Keywords",
    "UsesAndDirections": "IntendedUseAndWorkflow PrimaryIntendedUsers HowToUse TargetedPatientPopulation"
    " CautionedOutOfScopeSettings",
    "Warnings": "KnownRisksAndLimitations KnownBiasesOrEthicalConsiderations ClinicalRiskLevel",
    "TrustIngredients": "AISystemFacts TransparencyInformation",
    "AISystemFacts": "OutcomesAndOutputs ModelType FoundationModels? InputDataSource OutputAndInputDataTypes"
    " DevelopmentDataCharacterization BiasMitigationApproaches OngoingMaintenance Security? Transparency?",
    "TransparencyInformation": "FundingSource ThirdPartyInformation? StakeholdersConsulted",
    "KeyMetrics": "UsefulnessUsabilityEfficacy FairnessEquity SafetyReliability",
    **dict.fromkeys(
        ("UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability"),
        "MetricGoal Results Interpretation TestType TestingDataDescription ValidationProcessAndJustification",
    ),
    "MetricResult": "Label ValueJson",
    "Resources": "EvaluationReferences? ClinicalTrial? PeerReviewedPublications ReimbursementStatus?"
    " PatientConsentOrDisclosure",
}
SEVERAL = {"Results": "MetricResult", "Keywords": "Keyword"}


def expect_valid(element):
    name = element.tag.removeprefix(f"{{{NAMESPACE}}}")
    children = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    if name in SEVERAL:
        assert set(children) <= {SEVERAL[name]}
        assert children or name == "Keywords"
    elif name in SCHEMA:
        wanted = SCHEMA[name].split()
        names = [each.rstrip("?") for each in wanted]
        assert children == [each for each in names if each in children], name
        assert {each for each in wanted if not each.endswith("?")} <= set(children), name
    else:
        assert not children
    for child in element:
        expect_valid(child)


@given(st.sets(st.sampled_from(ASKED)), st.sampled_from([None, PERFORMANCE]), st.sampled_from([None, SERVICE]))
def test_chais_card_has_the_elements_of_its_schema_whatever_is_known(names, held_out, service):
    known = {name: Said(fact=name, lines=("x",), source="y") for name in names}
    expect_valid(etree.fromstring(chai_xml(card_of(known, "chai", held_out=held_out, service=service))))


def texts(card, name):
    return [each.text for each in etree.fromstring(chai_xml(card)).iter(f"{{{NAMESPACE}}}{name}")]


def test_what_nobody_says_is_said_to_be_missing_in_the_xml(by_run):
    card = card_of(by_run, "chai", held_out=PERFORMANCE)
    assert texts(card, "FundingSource")[0].startswith(NOT_STATED)
    assert texts(card, "ModelName") == ["hematocrit"]
    assert texts(card, "ClinicalTrial") == []
    values = dict(zip(texts(card, "Label"), texts(card, "ValueJson"), strict=True))
    assert json.loads(values["AUROC, held out"]) == {
        "kind": "estimate_ci",
        "estimate": 0.5,
        "lower": 0.25,
        "upper": 0.75,
        "level": 95,
    }
    assert values["AUROC of sex male, held out"] == "null"


NASTY = "<script>alert(\"&')</script> ]]> & é"


def test_words_of_people_are_words_on_the_page_and_in_the_xml(by_run):
    said = Statements(schema_version=1, said_by=NASTY, answers={"funding": NASTY, "keywords": f"{NASTY}, b"})
    card = card_of(known_of([*by_run.values(), *said.facts]))
    page = card_page(card)
    assert "<script" not in page
    assert any(each.text == NASTY for each in etree.fromstring(page.partition("\n")[2].encode()).iter("p"))
    assert texts(card, "FundingSource") == [NASTY]
    assert texts(card, "Keyword") == [NASTY, "b"]


def test_the_same_card_gives_the_same_bytes_and_json_holds_all_of_it(by_run):
    first, second = (card_of(dict(order), held_out=PERFORMANCE, service=SERVICE) for order in (by_run, by_run))
    for write in (card_page, chai_xml, card_json):
        assert write(first) == write(second)
    told = json.loads(card_json(first))
    assert set(told["facts"]) == set(by_run)
    assert set(told["missing"]) == set(ASKED) - set(by_run)
    assert [len(paper["items"]) for paper in told["papers"].values()] == [len(each.items) for each in PROFILES.values()]


def test_an_empty_template_says_nothing_and_asks_every_question():
    said = parse_statements(template().encode())
    assert said.facts == ()
    assert set(said.answers) == set(QUESTIONS)
    assert set(said.answers.values()) == {None}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("answers: {founding: x}\nsaid_by: ada", "founding"),
        ("answers: {funding: x}", "said_by"),
        ("answers: {funding: 7}\nsaid_by: ada", "answers"),
        ('answers: {funding: "a\\u0007b"}\nsaid_by: ada', "control characters"),
        ("said_bye: ada", "said_by"),
    ],
)
def test_a_card_that_says_what_cannot_be_is_refused(content, told):
    with pytest.raises(YamlInvalid, match=told):
        parse_statements(f"schema_version: 1\n{content}\n".encode())
