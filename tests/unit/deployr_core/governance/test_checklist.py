"""Go or no-go: each decision against cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployr_core.bundle import Estimate
from deployr_core.governance.bars import DEFAULTS, OURS, parse_bars
from deployr_core.governance.checklist import (
    Evidence,
    Parity,
    Verdict,
    at_least,
    at_most,
    checklist,
    in_words_of_all,
    within,
)
from deployr_core.governance.performance import GroupPerformance, Performance, Service
from deployr_core.strict_yaml import YamlInvalid

PASSED, FAILED, UNTOLD = Verdict


def between(low, high):
    return Estimate(value=(low + high) / 2, low=low, high=high)


def a_group(name, gap):
    return GroupPerformance(grouping="sex", name=name, rows=100, patients=50, auroc=between(0.7, 0.8), gap=gap)


PERFORMANCE = Performance(
    rows=200,
    patients=100,
    positives=100,
    figures={
        "auroc": between(0.7, 0.8),
        "calibration_in_the_large": between(-0.05, 0.05),
        "calibration_slope": between(0.7, 1.3),
    },
    groups=(a_group("female", between(-0.1, 0.1)), a_group("male", between(0.0, 0.1))),
)
SERVICE = Service(
    days=28,
    requests=300,
    answered=between(0.95, 1.0),
    ripe=200,
    labelled=between(0.95, 1.0),
    observed=between(0.9, 1.0),
    latency_ms=between(4_000, 5_000),
    performance=PERFORMANCE,
)
ENOUGH = Evidence(
    parity=Parity(orders=30, compared=1_000, equal=990), service=SERVICE, drift=(), signed_by="site", unsigned=""
)


def told(evidence, bars=DEFAULTS):
    return {each.item: each for each in checklist(evidence, bars)}


def served(**changes):
    return replace(ENOUGH, service=replace(SERVICE, **changes))


def performed(**changes):
    return served(performance=replace(PERFORMANCE, **changes))


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (between(0.7, 0.9), PASSED),
        (between(0.8, 0.9), PASSED),
        (between(0.69, 0.9), UNTOLD),
        (between(0.6, 0.7), UNTOLD),
        (between(0.5, 0.69), FAILED),
        ("one class only", UNTOLD),
    ],
)
def test_an_interval_passes_from_its_bar_on_fails_under_it_and_tells_nothing_around_it(figure, verdict):
    assert at_least(figure, 0.7) is verdict


def test_at_most_and_within_include_their_ends():
    assert [at_most(between(1, 3), bar) for bar in (3, 2, 1, 0.5)] == [PASSED, UNTOLD, UNTOLD, FAILED]
    assert [within(between(1, 3), *ends) for ends in ((1, 3), (2, 4), (3.5, 4), (0, 0.5))] == [
        PASSED,
        UNTOLD,
        FAILED,
        FAILED,
    ]


def test_evidence_that_just_reaches_every_bar_is_a_go():
    items = checklist(ENOUGH, DEFAULTS)
    assert {each.verdict for each in items} == {PASSED}
    assert in_words_of_all(items) == f"Go: all {len(items)} items passed."
    assert all(each.do == "" and each.for_journal().passed for each in items)


def test_without_evidence_nothing_passes_and_every_item_says_what_to_do():
    items = checklist(Evidence(unsigned="no signature"), DEFAULTS)
    assert {each.item for each in items if each.verdict is FAILED} == {"signature"}
    assert {each.verdict for each in items} == {FAILED, UNTOLD}
    assert all(each.do and not each.for_journal().passed for each in items)
    assert in_words_of_all(items).startswith("No go: failed: signature; cannot be told: parity, days")


@pytest.mark.parametrize(
    ("item", "evidence", "verdict"),
    [
        ("parity", replace(ENOUGH, parity=Parity(orders=30, compared=1_000, equal=989)), FAILED),
        ("parity", replace(ENOUGH, parity=Parity(orders=29, compared=1_000, equal=1_000)), UNTOLD),
        ("parity", replace(ENOUGH, parity=Parity(orders=30, compared=0, equal=0)), UNTOLD),
        ("days", served(days=27), FAILED),
        ("patients", performed(patients=99), FAILED),
        ("positives", performed(positives=99), FAILED),
        ("negatives", performed(positives=101), FAILED),
        ("positives", served(performance="no label"), UNTOLD),
        ("coverage", served(answered=between(0.90, 0.94)), FAILED),
        ("coverage", served(answered=between(0.90, 0.96)), UNTOLD),
        ("labelled", served(labelled=between(0.90, 0.96)), UNTOLD),
        ("latency_ms", served(latency_ms=between(4_000, 5_001)), UNTOLD),
        ("latency_ms", served(latency_ms=between(5_001, 6_000)), FAILED),
        ("auroc", performed(figures={"auroc": between(0.6, 0.69)}), FAILED),
        ("calibration_slope", performed(figures={"auroc": between(0.7, 0.8)}), UNTOLD),
        ("calibration_slope", performed(figures={"calibration_slope": between(1.4, 1.6)}), FAILED),
        ("calibration_in_the_large", performed(figures={"calibration_in_the_large": between(0.04, 0.06)}), UNTOLD),
        ("subgroup_gaps", performed(groups=()), UNTOLD),
        ("subgroup_gaps", performed(groups=(a_group("female", "too small"),)), UNTOLD),
        ("subgroup_gaps", performed(groups=(a_group("female", between(-0.2, -0.11)),)), FAILED),
        ("subgroup_gaps", performed(groups=(a_group("female", between(-0.11, 0.1)),)), UNTOLD),
        ("drift", replace(ENOUGH, drift=("labs: shifted",)), FAILED),
        ("drift", replace(ENOUGH, drift=None), UNTOLD),
        ("signature", replace(ENOUGH, signed_by=None, unsigned="another key"), FAILED),
    ],
)
def test_each_item_alone_fails_or_cannot_be_told_by_its_own_evidence(item, evidence, verdict):
    found = told(evidence)
    assert found[item].verdict is verdict
    assert found[item].do
    assert not found[item].for_journal().passed


def test_groups_that_are_too_small_are_named_beside_a_pass():
    groups = (a_group("female", between(-0.1, 0.0)), a_group("male", "under 20 rows"))
    found = told(performed(groups=groups))["subgroup_gaps"]
    assert (found.verdict, found.said) == (PASSED, "nothing can be told of: sex male")
    assert found.figure == "sex female: -0.050 (-0.100 to 0.000), the lowest of 1 groups"


def test_a_sites_bar_goes_before_ours_and_a_models_before_that():
    bars = parse_bars(
        b"schema_version: 1\n"
        b"every_model: {auroc: {bar: 0.8, because: our committee}}\n"
        b"models: {hematocrit: {auroc: {bar: 0.65, because: it only sorts a list}}}\n"
    )
    assert [bars.of(name)["auroc"].bar for name in ("other", "hematocrit")] == [0.8, 0.65]
    assert bars.of("other")["days"] == DEFAULTS["days"]
    assert OURS.of("other") == DEFAULTS
    found = told(ENOUGH, bars.of("other"))["auroc"]
    assert (found.verdict, found.because) == (UNTOLD, "our committee")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("every_model: {auroc: {bar: 0.8}}", "because"),
        ("every_model: {auroc: {bar: 0.8, because: ' '}}", "reason"),
        ("every_model: {auroc: {bar: 80, because: x}}", "share"),
        ("every_model: {aurok: {bar: 0.8, because: x}}", "aurok"),
        ("models: {m: {calibration_slope_low: {bar: 1.4, because: x}}}", "calibration_slope_low"),
    ],
)
def test_a_bar_without_a_reason_or_that_cannot_be_is_refused(content, said):
    with pytest.raises(YamlInvalid, match=said):
        parse_bars(f"schema_version: 1\n{content}\n".encode())
