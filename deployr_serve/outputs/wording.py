"""What every way out says alike: instants as the wire writes them, and a score as number and in words.

How many decimals, which words, and whether the alert is packed into the number is the model's deployment file's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket, Mode, Scored
from deployr_core.postprocess import ScoreUnusable, packed_alert
from deployr_serve.core.errors import InvalidScore, OutputNotOffered
from deployr_serve.core.policy import Policy


def scored(packet: InferencePacket) -> Scored:
    """Give the packet's score.

    Raises:
        InvalidScore: it has none.
    """
    if not isinstance(packet.outcome, Scored):
        raise InvalidScore("expected a packet that was scored")
    return packet.outcome


def of_model(declared: Mapping[str, str], model_id: str, *, output: str) -> str:
    """Give what the site declared for one model.

    Raises:
        OutputNotOffered: nothing.
    """
    if model_id not in declared:
        raise OutputNotOffered(f"expected an entry for this model under {output} in DEPLOYR_OUTPUTS_FILE")
    return declared[model_id]


def wire_instant(instant: datetime) -> str:
    """Write an instant as ``2019-09-18T17:19:23Z``: in UTC, to the second.

    Source: wire formats document, section 3, flowsheet, InstantValueTaken [seen]; FHIR R4 datatypes.html#dateTime.
    """
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def one_number(packet: InferencePacket, policy: Policy, *, output: str) -> str:
    """Give what a target that takes one number gets: the score as people read it, or packed with the alert.

    Raises:
        InvalidScore: the packet is not scored, or with a number that may not be shown.
    """
    outcome = scored(packet)
    try:
        if output in policy.packed_in:
            return packed_alert(outcome.score, alert=packet.is_advised)
        return policy.number(outcome.score, is_probability=outcome.value_unit is None)
    except ScoreUnusable as error:
        raise InvalidScore(str(error)) from None


def unit_of(packet: InferencePacket, policy: Policy, *, output: str) -> str:
    """Give the unit of `one_number`, in UCUM; a packed one has none, which is written ``1``."""
    unit = scored(packet).value_unit
    return "1" if output in policy.packed_in else "%" if unit is None else unit


def number_with_unit(packet: InferencePacket, policy: Policy) -> str:
    """Give ``75 %``, or the number in its own unit."""
    return f"{one_number(packet, policy, output='')} {unit_of(packet, policy, output='')}"


def headline(packet: InferencePacket, manifest: Manifest, policy: Policy) -> str:
    """Give the advisory's headline where there is advice, else the score with its name and band."""
    advice = advice_in(packet, policy)
    return advice[0] if advice else f"{manifest.score_name}: {_with_band(packet, policy)}"


def advice_in(packet: InferencePacket, policy: Policy) -> tuple[str, ...]:
    """Give the words of the advisory, the headline first; empty if this packet does not advise, or must not say so.

    Where scores go out in every arm of a trial, none has words, for they would tell the arms apart.
    """
    advisory, in_every_arm = policy.advisory, policy.mode is Mode.TRIAL and policy.scores_in_every_arm
    if advisory is None or not packet.is_advised or in_every_arm:
        return ()
    score = scored(packet).score
    detail = policy.in_words(advisory.detail, score).splitlines()
    return (policy.in_words(advisory.headline, score), *(line for line in detail if line.strip()))


def lines(packet: InferencePacket, manifest: Manifest, policy: Policy) -> tuple[str, ...]:
    """Say what is advised, and what was predicted, by which model and as of when; no name, no identifier."""
    blanks = {
        "score_name": manifest.score_name,
        "score": _with_band(packet, policy),
        "label": manifest.task.label,
        "model": manifest.model_id,
        "version": manifest.version,
        "as_of": wire_instant(packet.as_of),
    }
    return (*advice_in(packet, policy), *(line.format(**blanks) for line in policy.message))


def _with_band(packet: InferencePacket, policy: Policy) -> str:
    decision = scored(packet).decision
    band = decision.band if decision is not None else None
    return number_with_unit(packet, policy) + (f" ({band})" if band else "")
