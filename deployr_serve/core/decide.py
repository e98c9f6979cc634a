"""What to do with a score, decided purely: from the policy, chance as it fell, and whom an advisory reached before."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from deployr_core.packet import Decision, Mode
from deployr_core.trial import Assignment, Showing
from deployr_serve.core.policy import Policy


class Why(StrEnum):
    """Why a score is advised or not; each code is in the glossary."""

    ADVISED = "advised"
    SILENT = "silent"
    NO_THRESHOLD = "no-threshold"
    BELOW_THRESHOLD = "below-threshold"
    NOT_ELIGIBLE = "not-eligible"
    CLUSTER_NOT_LISTED = "cluster-not-listed"
    CONTROL = "control"
    EXPLORED = "explored"
    SUPPRESSED_RECENTLY = "suppressed-recently"
    SUPPRESSED_ACKNOWLEDGED = "suppressed-acknowledged"
    NOT_STORED = "not-stored"
    NOT_APPROVED = "not-approved"


SWITCHED_OFF = "switched-off"
"""The reason of an abstention: the deployment's mode is ``off``, or somebody turned the kill switch."""


def decide(
    policy: Policy,
    *,
    score: float,
    assignment: Assignment | None = None,
    left_out: Why = Why.NOT_ELIGIBLE,
    showing: Showing | None = None,
    suppressed: Why | None = None,
) -> Decision:
    """Decide whether a score is advised.

    Args:
        policy: the one in force; its mode is not ``off``, for then nothing is scored.
        score: the headline.
        assignment: the unit's arm in mode ``trial``; None where the unit takes no part in it.
        left_out: why it takes none, where it does not.
        showing: how chance fell for this packet, in mode ``trial`` and with an assignment.
        suppressed: what speaks against another advisory for the same patient, if anything does. It counts only where
            there would be one, in whichever arm: both arms have the same occasions.
    """
    why = _why(policy, score=score, assignment=assignment, left_out=left_out, showing=showing, suppressed=suppressed)
    by_chance = suppressed is None and policy.mode is Mode.TRIAL
    return Decision(
        mode=policy.mode,
        advise=why is Why.ADVISED or (why is Why.EXPLORED and showing is not None and showing.shown),
        why=why.value,
        policy_sha256=policy.sha256,
        threshold=policy.threshold,
        band=policy.band(score),
        eligible=assignment is not None,
        assignment=assignment,
        # Where something else than chance decided, a probability would be a wrong design weight.
        showing=showing if by_chance else None,
    )


def unapproved(policy: Policy, *, score: float) -> Decision:
    """Decide on the score of a bundle that the registry lets nobody see: as in silent mode, and chance is not asked."""
    return Decision(
        mode=Mode.SILENT,
        advise=False,
        why=Why.NOT_APPROVED.value,
        policy_sha256=policy.sha256,
        threshold=policy.threshold,
        band=policy.band(score),
        eligible=False,
        assignment=None,
        showing=None,
    )


def silenced(decision: Decision | None, why: str) -> Decision | None:
    """Give an earlier decision as it is repeated while the model is silent, or its bundle is not approved any more."""
    if decision is None:
        return None
    return msgspec.structs.replace(decision, mode=Mode.SILENT, advise=False, why=why)


def outputs_of(policy: Policy, decision: Decision, configured: tuple[str, ...]) -> tuple[str, ...]:
    """Give the names of the outputs that get this score.

    Silent: none. Live: every score, except for outputs that get only what is advised. Trial: only what is advised, for
    a score that a control arm's clinicians can see is no control; the policy may say that they cannot.
    """
    if decision.mode in {Mode.SILENT, Mode.OFF}:
        return ()
    every_score = decision.mode is Mode.LIVE or policy.scores_in_every_arm
    wanted = configured if policy.outputs is None else tuple(name for name in configured if name in policy.outputs)
    return tuple(name for name in wanted if decision.advise or (every_score and name not in policy.when_advised))


def _why(
    policy: Policy,
    *,
    score: float,
    assignment: Assignment | None,
    left_out: Why,
    showing: Showing | None,
    suppressed: Why | None,
) -> Why:
    if policy.mode is Mode.SILENT:
        return Why.SILENT
    if policy.threshold is None:
        return Why.NO_THRESHOLD
    if policy.mode is Mode.TRIAL:
        if assignment is None or showing is None:
            return left_out
        return _why_in_trial(showing, suppressed)
    if score < policy.threshold:
        return Why.BELOW_THRESHOLD
    return suppressed or Why.ADVISED


def _why_in_trial(showing: Showing, suppressed: Why | None) -> Why:
    if suppressed is not None:
        return suppressed
    if showing.explored:
        return Why.EXPLORED
    if showing.shown:
        return Why.ADVISED
    return Why.CONTROL if showing.above else Why.BELOW_THRESHOLD
