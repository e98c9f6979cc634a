"""Answers of CDS Hooks: cards from stored packets and their policies, and errors as the specification wants them. Pure.

No advice is always the same bytes: silent mode, a control arm, a score under the threshold and an abstention look
alike, so that nothing on the wire unblinds a trial.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#cds-service-response [seen].
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from deployr_core.packet import Failed, InferencePacket, Received, Rejected, Scored
from deployr_core.reasons import Reason
from deployr_serve.core import errors
from deployr_serve.core.errors import InProgress, ServeError
from deployr_serve.core.infer import Answer
from deployr_serve.core.policy import LONGEST_HEADLINE, Action, ActionKind, Policies, Policy, Suggestion
from deployr_serve.triggers.cds_request import DraftOrder, HookCall
from deployr_serve.triggers.json_request import HttpAnswer
from deployr_serve.triggers.operation_outcome import (
    ANSWER_OF_ERROR,
    ERROR_OF_REASON,
    UNEXPECTED,
    ErrorAnswer,
    render_operation_outcome,
)

NO_ADVICE = b'{"cards":[]}'
_LONGEST_LABEL = 80
_WITHOUT_FHIR_DATA = (
    errors.EmrUnreachable,
    errors.EmrTimeout,
    errors.EmrThrottled,
    errors.EmrBadResponse,
    errors.EmrTooLarge,
    errors.EmrIncomplete,
    errors.EmrRefused,
    errors.InsufficientScope,
)
"""What the specification answers with 412: the facts were neither handed over nor to be had."""


class Cards:
    """Makes the cards of a call's packets, each once.

    Args:
        call: what was asked.
        policies: the ones in force.
        because: gives the largest contributions to a packet's score, in words.
    """

    def __init__(
        self, call: HookCall, policies: Policies, *, because: Callable[[InferencePacket], Sequence[Reason]]
    ) -> None:
        self._call = call
        self._policies = policies
        self._because = because
        self._made: dict[str, tuple[InferencePacket, dict[str, Any]]] = {}

    def prepare(self, packet: InferencePacket) -> None:
        """Make the card, if the packet makes one, and keep it for when this very packet is told of."""
        if _is_advised(packet, self._policies):
            self._made[packet.packet_id] = packet, self._card(packet)

    def of(self, packet: InferencePacket) -> dict[str, Any]:
        """Give the card of a packet that makes one."""
        made_of, card = self._made.get(packet.packet_id, (None, {}))
        return card if made_of is packet else self._card(packet)

    def _card(self, packet: InferencePacket) -> dict[str, Any]:
        draft = self._call.draft_for(packet.model.model_id)
        return _card(packet, self._policies, draft, self._because(packet))


def render_cards(answers: Sequence[Answer], policies: Policies, *, cards: Cards) -> HttpAnswer:
    """Render the answers of a service's models: 200 with the cards of those that advise, or an OperationOutcome.

    One model that was refused refuses the whole, for the models were asked about the same patient; failures count only
    where all have failed.

    Args:
        answers: of the models that were; none where no draft order is one of theirs.
        policies: the ones in force.
        cards: of this call.
    """
    headers = {}
    if answers:
        headers["X-Packet-Id"] = ", ".join(answer.packet.packet_id for answer in answers)
    if answers and all(answer.replayed for answer in answers):
        headers["X-Bridge-Replay"] = "1"
    outcomes = [answer.packet.outcome for answer in answers]
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)]
    failed = [
        InProgress.reason if isinstance(outcome, Received) else outcome.reason
        for outcome in outcomes
        if isinstance(outcome, Failed | Received)
    ]
    if refused or (failed and len(failed) == len(outcomes)):
        return _error([*refused, *failed][0], detail=None, headers=headers)
    made = [cards.of(packet) for packet in advised(answers, policies)]
    body = msgspec.json.encode({"cards": made}) if made else NO_ADVICE
    return HttpAnswer(status=200, body=body, content_type="application/json", headers=headers)


def advised(answers: Sequence[Answer], policies: Policies) -> tuple[InferencePacket, ...]:
    """Give the packets that make a card: those that are to advise, where the policy has words for it."""
    return tuple(answer.packet for answer in answers if _is_advised(answer.packet, policies))


def render_hook_error(error: ServeError) -> HttpAnswer:
    """Render an error that left no packet."""
    return _error(error.reason, detail=str(error), headers={})


def render_wrong_method(allowed: str) -> HttpAnswer:
    """Render the answer to a method that a route does not have."""
    answer = ErrorAnswer(status=405, issue_type="not-supported", text=f"This route takes {allowed}.")
    return HttpAnswer(
        status=answer.status,
        body=render_operation_outcome(answer, reason="method-not-allowed"),
        content_type="application/fhir+json",
        headers={"Allow": allowed},
    )


def card_uuid(packet_id: str) -> str:
    """Give the id of a packet's card: the packet's own, written as a UUID."""
    return str(uuid.UUID(hex=packet_id[1:]))


def packet_id_of(card: str) -> str:
    """Give the id of the packet that a card with this UUID would be of.

    Raises:
        ValueError: no UUID.
    """
    return f"p{uuid.UUID(card).hex}"


def suggestion_uuid(packet_id: str, number: int) -> str:
    """Give the id of a card's suggestion, counted from 1."""
    return str(uuid.uuid5(uuid.UUID(hex=packet_id[1:]), f"suggestion {number}"))


def _is_advised(packet: InferencePacket, policies: Policies) -> bool:
    return packet.is_advised and policies.of(packet.model.model_id).advisory is not None


def _card(
    packet: InferencePacket, policies: Policies, draft: DraftOrder | None, because: Sequence[Reason]
) -> dict[str, Any]:
    policy = policies.of(packet.model.model_id)
    advisory, outcome = policy.advisory, packet.outcome
    if advisory is None or not isinstance(outcome, Scored):
        raise ValueError("expected a packet that makes a card")
    card: dict[str, Any] = {
        "uuid": card_uuid(packet.packet_id),
        "summary": _plain(policy.in_words(advisory.headline, outcome.score), at_most=LONGEST_HEADLINE),
        "indicator": advisory.indicator,
        "source": {"label": _plain(advisory.source_label, at_most=_LONGEST_LABEL)},
    }
    detail = _detail(policy, outcome, because)
    if detail:
        card["detail"] = detail
    suggestions = [
        rendered
        for number, suggestion in enumerate(advisory.suggestions, start=1)
        if (rendered := _suggestion(suggestion, number, packet, draft)) is not None
    ]
    if suggestions:
        card |= {"suggestions": suggestions, "selectionBehavior": "any"}
    if advisory.acknowledge_reasons:
        card["overrideReasons"] = [
            {"code": reason.code, "system": reason.system, "display": reason.display}
            for reason in advisory.acknowledge_reasons
        ]
    if advisory.links:
        card["links"] = [
            {"label": _plain(link.label), "url": link.url, "type": "smart" if link.smart else "absolute"}
            for link in advisory.links
        ]
    return card


def _detail(policy: Policy, outcome: Scored, because: Sequence[Reason]) -> str:
    template = policy.advisory.detail if policy.advisory else ""
    listed = "\n".join(f"- {reason.text}" for reason in because)
    parts = (policy.in_words(template, outcome.score).strip(), listed)
    return _without_html("\n\n".join(part for part in parts if part))


def _suggestion(
    suggestion: Suggestion, number: int, packet: InferencePacket, draft: DraftOrder | None
) -> dict[str, Any] | None:
    """Render a suggestion; None if it is about the draft order, and this request has none that can be named."""
    actions = []
    for action in suggestion.actions:
        about_draft = action.kind is not ActionKind.CREATE
        if about_draft and (draft is None or draft.reference is None):
            return None
        actions.append(_action(action, packet, draft.reference if draft is not None else None))
    return {
        "label": _plain(suggestion.label),
        "uuid": suggestion_uuid(packet.packet_id, number),
        **({"isRecommended": True} if suggestion.recommended else {}),
        **({"actions": actions} if actions else {}),
    }


def _action(action: Action, packet: InferencePacket, reference: str | None) -> dict[str, Any]:
    rendered: dict[str, Any] = {"type": action.kind, "description": _plain(action.description)}
    if action.kind is ActionKind.DELETE:
        # A single reference: so says version 2.0's text; its examples, and 1.0's clients, write the same.
        return {**rendered, "resourceId": reference}
    subject = {"reference": f"Patient/{packet.subject.patient_id}"}
    resource = {**(action.resource or {}), "subject": subject}
    if packet.subject.encounter_id is not None:
        resource["encounter"] = {"reference": f"Encounter/{packet.subject.encounter_id}"}
    if action.kind is ActionKind.UPDATE and reference is not None:
        resource["id"] = reference.partition("/")[2]
    return {**rendered, "resource": resource}


def _plain(text: str, *, at_most: int | None = None) -> str:
    """Give text without anything that a browser could take for HTML, on one line."""
    line = " ".join(text.replace("<", "\u2039").replace(">", "\u203a").split())
    return line if at_most is None or len(line) <= at_most else f"{line[: at_most - 1]}\u2026"


def _without_html(text: str) -> str:
    """Give Markdown in which nothing begins an HTML tag; what was written as one is shown as it was written."""
    return text.replace("<", "&lt;")


def _error(reason: str, *, detail: str | None, headers: dict[str, str]) -> HttpAnswer:
    error = ERROR_OF_REASON.get(reason)
    answer: ErrorAnswer = ANSWER_OF_ERROR[error] if error else UNEXPECTED
    status = 412 if error and issubclass(error, _WITHOUT_FHIR_DATA) else answer.status
    if answer.retry_after_s is not None:
        headers = {**headers, "Retry-After": str(answer.retry_after_s)}
    return HttpAnswer(
        status=status,
        body=render_operation_outcome(answer, reason=reason, detail=detail),
        content_type="application/fhir+json",
        headers=headers,
    )
