"""What is done with a score: each reason for and against advising, and where the score goes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployr_core.packet import Decision, Mode
from deployr_core.registry.roles import Reason
from deployr_core.trial import Arm, Assignment, AssignmentSource, RandomizationUnit, Showing, Trial
from deployr_serve.core.decide import SWITCHED_OFF, Why, decide, outputs_of, silenced, unapproved
from deployr_serve.core.policy import Band, Policy
from deployr_serve.core.registry_deeds import BROKEN

GLOSSARY = Path(__file__).parents[3] / "docs" / "glossary.md"
TRIAL = Trial(
    trial_id="t",
    version=1,
    unit=RandomizationUnit.PATIENT,
    arms=(Arm(name="control", shows=False), Arm(name="advisory", shows=True)),
)


def policy_of(mode=Mode.LIVE, **changes):
    bands = (Band(name="low", at_least=0.0), Band(name="high", at_least=0.5))
    settings = {"threshold": 0.5, "bands": bands, "trial": TRIAL, **changes}
    return Policy(schema_version=1, model="hematocrit", mode=mode, **settings)


def assigned(arm):
    return Assignment(
        trial_id="t",
        version=1,
        unit=RandomizationUnit.PATIENT,
        unit_hash="0" * 32,
        strata=(),
        arm=arm,
        probability=0.5,
        source=AssignmentSource.KEYED_HASH,
    )


def shown(*, shown, above, explored=False):
    return Showing(shown=shown, above=above, explored=explored, probability=0.5)


HIDDEN, SEEN = assigned("control"), assigned("advisory")
CASES = {
    # mode, threshold, score, assignment, showing, suppressed -> why, advise
    "silent says nothing at any score": (Mode.SILENT, 0.5, 1.0, None, None, None, Why.SILENT, False),
    "without a threshold nothing": (Mode.LIVE, None, 1.0, None, None, None, Why.NO_THRESHOLD, False),
    "just below the threshold": (Mode.LIVE, 0.5, 0.4999, None, None, None, Why.BELOW_THRESHOLD, False),
    "at the threshold": (Mode.LIVE, 0.5, 0.5, None, None, None, Why.ADVISED, True),
    "twice within hours": (Mode.LIVE, 0.5, 0.9, None, None, Why.SUPPRESSED_RECENTLY, Why.SUPPRESSED_RECENTLY, False),
    "after an answer": (
        *(Mode.LIVE, 0.5, 0.9, None, None, Why.SUPPRESSED_ACKNOWLEDGED),
        *(Why.SUPPRESSED_ACKNOWLEDGED, False),
    ),
    "no unit to randomize": (Mode.TRIAL, 0.5, 0.9, None, None, None, Why.NOT_ELIGIBLE, False),
    "the control arm": (Mode.TRIAL, 0.5, 0.9, HIDDEN, shown(shown=False, above=True), None, Why.CONTROL, False),
    "the advisory arm": (Mode.TRIAL, 0.5, 0.9, SEEN, shown(shown=True, above=True), None, Why.ADVISED, True),
    "either arm below": (Mode.TRIAL, 0.5, 0.1, SEEN, shown(shown=False, above=False), None, Why.BELOW_THRESHOLD, False),
    "shown below by chance": (
        *(Mode.TRIAL, 0.5, 0.1, SEEN, shown(shown=True, above=False, explored=True), None),
        *(Why.EXPLORED, True),
    ),
    "hidden above by chance": (
        *(Mode.TRIAL, 0.5, 0.9, SEEN, shown(shown=False, above=True, explored=True), None),
        *(Why.EXPLORED, False),
    ),
    "while the store is down": (Mode.LIVE, 0.5, 0.9, None, None, Why.NOT_STORED, Why.NOT_STORED, False),
    "suppressed, whatever the arm": (
        *(Mode.TRIAL, 0.5, 0.9, HIDDEN, shown(shown=False, above=True), Why.SUPPRESSED_RECENTLY),
        *(Why.SUPPRESSED_RECENTLY, False),
    ),
}


@pytest.mark.parametrize(
    ("mode", "threshold", "score", "assignment", "showing", "suppressed", "why", "advise"), CASES.values(), ids=CASES
)
def test_each_reason_is_given_where_it_holds(mode, threshold, score, assignment, showing, suppressed, why, advise):
    policy = policy_of(mode if threshold is not None else Mode.LIVE, threshold=threshold)
    decision = decide(policy, score=score, assignment=assignment, showing=showing, suppressed=suppressed)
    assert (decision.why, decision.advise, decision.mode) == (why, advise, mode)


def test_who_takes_no_part_is_told_why():
    decision = decide(policy_of(Mode.TRIAL), score=0.9, left_out=Why.CLUSTER_NOT_LISTED)
    assert (decision.why, decision.advise, decision.eligible) == ("cluster-not-listed", False, False)


def test_every_reason_is_tried_above():
    # Whether a bundle is approved is asked before anything is decided.
    assert {case[6] for case in CASES.values()} == set(Why) - {Why.NOT_APPROVED, Why.CLUSTER_NOT_LISTED}


def test_an_unapproved_bundles_score_is_kept_as_in_silent_mode_and_chance_is_not_asked():
    decision = unapproved(policy_of(), score=0.9)
    assert (decision.mode, decision.advise, decision.why) == (Mode.SILENT, False, "not-approved")
    assert (decision.policy_sha256, decision.threshold) == (policy_of().sha256, policy_of().threshold)
    assert (decision.eligible, decision.assignment, decision.showing) == (False, None, None)
    assert outputs_of(policy_of(), decision, ("score-column",)) == ()


def test_a_decision_says_what_was_in_force_and_who_took_part():
    policy = policy_of(Mode.TRIAL)
    decision = decide(policy, score=0.9, assignment=SEEN, showing=shown(shown=True, above=True))
    assert decision == Decision(
        mode=Mode.TRIAL,
        advise=True,
        why="advised",
        policy_sha256=policy.sha256,
        threshold=0.5,
        band="high",
        eligible=True,
        assignment=SEEN,
        showing=shown(shown=True, above=True),
    )


def test_no_design_weight_is_given_where_something_else_than_chance_decided():
    suppressed = decide(
        policy_of(Mode.TRIAL),
        score=0.9,
        assignment=SEEN,
        showing=shown(shown=True, above=True),
        suppressed=Why.SUPPRESSED_RECENTLY,
    )
    assert (suppressed.showing, suppressed.assignment) == (None, SEEN)


BOTH = ("score-column", "in-basket")
WAYS_OUT = {
    # mode, changes of the policy, advised -> outputs
    "live, advised": (Mode.LIVE, {}, True, BOTH),
    "live, not advised": (Mode.LIVE, {}, False, BOTH),
    "live, messages only of what is advised": (Mode.LIVE, {"when_advised": ("in-basket",)}, False, ("score-column",)),
    "live, the message too when advised": (Mode.LIVE, {"when_advised": ("in-basket",)}, True, BOTH),
    "live, only what is named": (Mode.LIVE, {"outputs": ("in-basket",)}, True, ("in-basket",)),
    "live, nothing is named": (Mode.LIVE, {"outputs": ()}, True, ()),
    "trial, shown": (Mode.TRIAL, {}, True, BOTH),
    "trial, hidden": (Mode.TRIAL, {}, False, ()),
    "trial, hidden, but nobody sees the column": (
        *(Mode.TRIAL, {"scores_in_every_arm": True, "when_advised": ("in-basket",)}, False),
        ("score-column",),
    ),
    "silent": (Mode.SILENT, {"scores_in_every_arm": True}, False, ()),
}


@pytest.mark.parametrize(("mode", "changes", "advised", "expected"), WAYS_OUT.values(), ids=WAYS_OUT)
def test_a_score_goes_where_the_policy_lets_it(mode, changes, advised, expected):
    decision = Decision(mode=mode, advise=advised, why="x", policy_sha256="0" * 64)
    assert outputs_of(policy_of(mode, **changes), decision, BOTH) == expected


def test_what_was_advised_before_is_not_while_the_model_is_silent():
    before = decide(policy_of(), score=0.9)
    after = silenced(before, Why.SILENT.value)
    assert (after.advise, after.why, after.mode) == (False, "silent", Mode.SILENT)
    assert silenced(None, Why.SILENT.value) is None


def test_every_code_is_in_the_glossary():
    written = set(re.findall(r"^\| `([a-z-]+)` \|", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE))
    assert {*Why, SWITCHED_OFF, *Reason, BROKEN} <= written
