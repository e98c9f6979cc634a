"""A stored packet scored again is the same to the bit, or it is said what has changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import Abstained, Contribution, Decision, Failed, Mode, Received, Rejected, Scored
from deployr_core.trial import Showing
from deployr_serve.core.explain import explained_score
from deployr_serve.core.outcome import scored_or_abstained
from deployr_serve.core.policy import Band, Policy
from deployr_serve.core.replay import Verdict, replay, replay_facts, why_not_scored

POLICY = Policy(
    schema_version=1,
    model="hematocrit",
    mode=Mode.LIVE,
    threshold=0.5,
    bands=(Band(name="low", at_least=0.0), Band(name="high", at_least=0.7)),
)
DECISION = Decision(mode=Mode.LIVE, advise=True, why="advised", policy_sha256=POLICY.sha256, threshold=0.5, band="high")


@pytest.fixture
def scored(bundle, fetched_of, lab_of, now):
    """Give what the model says of one result, taken apart: 3 / 4."""
    return explained_score(scored_or_abstained(bundle, fetched_of(lab_of()), as_of=now), bundle)


@pytest.fixture
def again(bundle, packet_of, scored):
    """Give a function that replays a scored packet in which some fields are other than they were made."""

    def make(*, installed=None, policy=None, **changes):
        packet = packet_of(outcome=msgspec.structs.replace(scored, **changes))
        return replay(packet, bundle, installed=installed or {}, policy=policy)

    return make


def test_what_was_not_touched_is_the_same(again, bundle):
    told = again(installed=dict(bundle.manifest.training.library_versions))
    assert (told.verdict, told.differences, told.beside) == (Verdict.SAME, (), ())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"score": 0.7500000000000001}, "score"),
        ({"outputs": {"positive": 0.5}}, "outputs"),
        ({"contributions": ()}, "contributions"),
        ({"contributions": (Contribution(concept="Sex", value=0.25),)}, "contributions"),
        ({"base": 0.4999999999999999}, "explained"),
        ({"explained": 0.5}, "explained"),
    ],
)
def test_a_single_bit_is_noticed_and_named(again, changes, named):
    told = again(**changes)
    assert (told.verdict, told.differences) == (Verdict.DIFFERS, (named,))


def test_the_sign_of_a_zero_is_a_bit_too(again, scored):
    parts = tuple(msgspec.structs.replace(each, value=-0.0) for each in scored.contributions)
    assert "contributions" in again(contributions=parts).differences


def test_a_packet_from_a_deployment_that_did_not_explain_is_the_same_without_contributions(again):
    assert again(contributions=(), base=None, explained=None).verdict is Verdict.SAME


def test_that_it_could_not_be_explained_then_is_said_beside(again):
    told = again(contributions=(), base=None, explained=None, coverage={"explain.failed": 1})
    assert (told.verdict, told.beside[-1]) == (Verdict.SAME, "it could not be explained when it was scored")


def test_another_declaration_is_named_before_anything_is_scored(again, scored):
    told = again(vector=msgspec.structs.replace(scored.vector, spec_sha256="0" * 64))
    assert told.differences == ("declaration: the features are another declaration's",)


def test_another_version_of_a_library_is_said_beside_what_is_the_same(again, bundle):
    trained = bundle.manifest.training.library_versions["treelite"]
    told = again(installed={"treelite": "0.1"})
    assert (told.verdict, told.beside) == (Verdict.SAME, (f"treelite {trained} at training, 0.1 here",))
    assert again(installed={}).beside == (f"treelite {trained} at training, none here",)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Abstained(reason="sparse"), "the packet is not scored: it is abstained, sparse"),
        (Failed(reason="emr-timeout", retryable=True), "the packet is not scored: it is failed, emr-timeout"),
        (Rejected(reason="wrong-patient"), "the packet is not scored: it is rejected, wrong-patient"),
    ],
)
def test_of_what_was_never_scored_nothing_can_be_told(bundle, packet_of, outcome, said):
    told = replay(packet_of(outcome=outcome), bundle, installed={}, policy=None)
    assert (told.verdict, told.why_unknown) == (Verdict.UNKNOWN, said)


def test_what_is_being_worked_on_has_no_reason(received):
    assert isinstance(received, Received)
    assert why_not_scored(received) == "the packet is not scored: it is received"


def test_a_decision_that_follows_from_the_score_is_the_same(again):
    assert again(decision=DECISION, policy=POLICY).verdict is Verdict.SAME


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"threshold": 0.8}, "decision: another side of the threshold"),
        ({"why": "below-threshold", "advise": False}, "decision: another side of the threshold"),
        ({"band": "low"}, "decision: another band"),
        ({"band": None}, "decision: another band"),
    ],
)
def test_a_decision_that_does_not_is_named(again, changes, named):
    told = again(decision=msgspec.structs.replace(DECISION, **changes), policy=POLICY)
    assert named in told.differences


def test_the_band_is_left_out_where_the_policy_is_no_longer_here(again):
    decision = msgspec.structs.replace(DECISION, band="low")
    assert again(decision=decision, policy=None).verdict is Verdict.SAME
    other = msgspec.structs.replace(POLICY, threshold=0.6)
    assert again(decision=decision, policy=other).verdict is Verdict.SAME


@pytest.mark.parametrize("why", ["suppressed-recently", "suppressed-acknowledged"])
def test_a_suppressed_advisory_stood_above_the_threshold(again, why):
    decision = msgspec.structs.replace(DECISION, why=why, advise=False)
    assert again(decision=decision).verdict is Verdict.SAME
    assert again(decision=msgspec.structs.replace(decision, threshold=0.8)).verdict is Verdict.DIFFERS


def test_in_a_trial_the_draw_says_on_which_side_the_score_stood(again):
    showing = Showing(shown=False, above=True, explored=False, probability=0.5)
    decision = msgspec.structs.replace(DECISION, mode=Mode.TRIAL, why="control", advise=False, showing=showing)
    assert again(decision=decision).verdict is Verdict.SAME
    below = msgspec.structs.replace(decision, showing=msgspec.structs.replace(showing, above=False))
    assert again(decision=below).differences == ("decision: another side of the threshold",)


def test_a_silent_score_was_not_compared_with_its_threshold(again):
    decision = msgspec.structs.replace(DECISION, mode=Mode.SILENT, why="silent", advise=False, threshold=0.9)
    assert again(decision=decision).verdict is Verdict.SAME


# -- from facts


def test_the_same_facts_give_the_same_features(bundle, packet_of, fetched_of, lab_of, scored):
    told = replay_facts(packet_of(outcome=scored), bundle, fetched_of(lab_of()), installed={})
    assert told.verdict is Verdict.SAME


def test_other_facts_are_named_by_the_features_that_differ_and_without_a_value(
    bundle, packet_of, fetched_of, lab_of, scored
):
    told = replay_facts(packet_of(outcome=scored), bundle, fetched_of(lab_of(value=31.5)), installed={})
    assert (told.verdict, told.features) == (Verdict.DIFFERS, ("labs/4544-3/last",))
    assert told.differences == ("features: 1 of 6",)
    assert "31" not in str(told)


def test_a_fact_more_is_named_by_what_it_was_counted_as(bundle, packet_of, fetched_of, lab_of, scored, now):
    more = lab_of("lab2", at=now - timedelta(hours=3))
    told = replay_facts(packet_of(outcome=scored), bundle, fetched_of(lab_of(), more), installed={})
    assert told.features == ("labs/4544-3/count",)
    assert "coverage: labs.results" in told.differences


def test_that_facts_were_not_kept_or_explained_then_is_no_difference(bundle, packet_of, fetched_of, lab_of, scored):
    noted = msgspec.structs.replace(scored, coverage={**scored.coverage, "explain.failed": 1, "facts.not_kept": 1})
    told = replay_facts(packet_of(outcome=noted), bundle, fetched_of(lab_of()), installed={})
    assert told.verdict is Verdict.SAME


def test_a_packet_that_abstained_abstains_again_or_it_is_said(bundle, packet_of, fetched_of, lab_of, scored):
    needy = msgspec.structs.replace(bundle.manifest.requires, features_present=1)
    bundle = msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, requires=needy))
    packet = packet_of(outcome=Abstained(reason="sparse"))
    assert replay_facts(packet, bundle, fetched_of(), installed={}).verdict is Verdict.SAME
    told = replay_facts(packet, bundle, fetched_of(lab_of()), installed={})
    assert told.differences == ("outcome: now scored",)
    told = replay_facts(packet_of(outcome=scored), bundle, fetched_of(), installed={})
    assert told.differences == ("outcome: now abstained, sparse",)


def test_a_late_answer_of_the_emr_is_part_of_the_facts(bundle, packet_of, fetched_of, lab_of):
    packet = packet_of(outcome=Abstained(reason="stale"))
    late = replace(fetched_of(lab_of()), oldest_answer_s=301.0)
    assert replay_facts(packet, bundle, late, installed={}).verdict is Verdict.SAME
    assert isinstance(packet_of().outcome, Scored)
