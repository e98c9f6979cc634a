"""The two ways to ask the bridge about an order and to tell it what became of its advice: CDS Hooks, and CDA alerts.

Whatever goes wrong in asking, there is no advice, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mock_emr.bpa_client import Advisory as BpaAdvisory
from mock_emr.bpa_client import Alert, BpaClient, advisory_in
from mock_emr.cds_client import CdsClient, Reply, accepted, overridden
from mock_emr.elements import reference_text
from mock_emr.screens.advisories import Advisory, Reason, Suggestion, advisories_in, blocks_of
from mock_emr.screens.bridge import Bridge, BridgeSettings, NoAnswer

CLINICIAN = "dr1"
_REMOVE = Suggestion(suggestion_id="remove", label="Remove the order", takes_back=True)
"""What this EMR itself offers in an alert: an alert's answer has no suggestions."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the bridge is asked about: an order with its id, of an encounter."""

    order: Mapping[str, Any] = field(repr=False)
    encounter: Mapping[str, Any] = field(repr=False)
    settings: BridgeSettings
    fhir_base: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Answered:
    """How a clinician answered the advisories.

    ``taken`` is the suggestion that was taken up, by its id; None overrides all of them. ``reasons`` are the codes that
    were chosen, by advisory; ``comment`` is the clinician's own words.
    """

    taken: str | None
    reasons: Mapping[str, str]
    comment: str | None = field(repr=False)


async def advice(bridge: Bridge, question: Question) -> tuple[Advisory, ...]:
    """Ask every service at once, as the settings say; what one does not answer in time, or not well, is missing."""
    ask = _ask_by_alert if question.settings.way == "bpa" else _ask_by_hook
    found = await asyncio.gather(*(ask(bridge, question, service) for service in question.settings.services))
    return tuple(advisory for advisories in found for advisory in advisories)


async def report(
    bridge: Bridge, question: Question, advisories: tuple[Advisory, ...], answered: Answered, *, at: datetime
) -> None:
    """Tell the bridge what became of its advice, of each in a call of its own."""
    tell = _tell_alert if question.settings.way == "bpa" else _tell_hook
    told = (tell(bridge, question, advisory, answered, at) for advisory in advisories)
    await asyncio.gather(*(_in_time(question.settings, each) for each in told if each is not None))


def taken_up(advisory: Advisory, answered: Answered) -> Suggestion | None:
    """Give the advisory's suggestion that was taken up, if any of its own was."""
    return next((one for one in advisory.suggestions if one.suggestion_id == answered.taken), None)


async def _ask_by_hook(bridge: Bridge, question: Question, service: str) -> tuple[Advisory, ...]:
    context = {
        "userId": f"Practitioner/{CLINICIAN}",
        "patientId": (reference_text(question.order["subject"]) or "").partition("/")[2],
        "encounterId": question.encounter["id"],
        "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": question.order}]},
    }
    call = _cds(bridge, question).fire({"id": service, "hook": "order-sign"}, context)
    reply = await _in_time(question.settings, call)
    # An answer that nests without end is as good as none.
    with suppress(ValueError, RecursionError):
        return advisories_in(reply.content, service=service) if reply is not None and reply.status == 200 else ()
    return ()


def _tell_hook(
    bridge: Bridge, question: Question, advisory: Advisory, answered: Answered, at: datetime
) -> Awaitable[Reply] | None:
    taken, card = taken_up(advisory, answered), {"uuid": advisory.advisory_id}
    if taken is None and answered.taken is not None:
        # What another advisory's suggestion made of the order says nothing about this one.
        return None
    if taken is not None:
        outcome = accepted({**card, "suggestions": [{"uuid": taken.suggestion_id}]}, at=at)
    else:
        chosen = [
            {"code": reason.code, "system": reason.system}
            for reason in advisory.reasons
            if reason.code == answered.reasons.get(advisory.advisory_id)
        ]
        outcome = overridden({**card, "overrideReasons": chosen}, at=at, comment=answered.comment)
    return _cds(bridge, question).feed_back(advisory.service, [outcome])


async def _ask_by_alert(bridge: Bridge, question: Question, service: str) -> tuple[Advisory, ...]:
    alert = Alert(order=question.order, encounter=question.encounter, provider=CLINICIAN, at=question.at)
    reply = await _in_time(question.settings, _bpa(bridge, question).fire(service, alert))
    with suppress(ValueError):
        if reply is not None and reply.status == 200:
            return _of_alert(advisory_in(reply.body), service)
    return ()


def _tell_alert(
    bridge: Bridge, question: Question, advisory: Advisory, answered: Answered, at: datetime
) -> Awaitable[Reply]:
    reason = None if answered.taken is not None else answered.reasons.get(advisory.advisory_id)
    return _bpa(bridge, question).acknowledge(advisory.advisory_id, at=at, reason=reason)


def _of_alert(told: BpaAdvisory, service: str) -> tuple[Advisory, ...]:
    if not told.is_advised or not told.packet_id:
        return ()
    listed = "\n".join(f"- {words}" for _, _, words in told.reasons)
    made = Advisory(
        advisory_id=told.packet_id,
        service=service,
        headline=told.headline or "Advisory",
        detail=blocks_of(f"{told.detail}\n\n{listed}"),
        indicator="info",
        source="",
        reasons=tuple(
            Reason(code=code, system="", display=words or code) for code, words in told.acknowledge_reasons if code
        ),
        suggestions=(_REMOVE,),
        links=(),
    )
    return (made,)


def _cds(bridge: Bridge, question: Question) -> CdsClient:
    return CdsClient(
        question.settings.address,
        fhir_base=question.fhir_base,
        send=bridge.send,
        now=bridge.real_now,
        signer=bridge.signer(question.fhir_base),
    )


def _bpa(bridge: Bridge, question: Question) -> BpaClient:
    user, found, password = (question.settings.login or "").partition(":")
    return BpaClient(question.settings.address, login=(user, password) if found else None, send=bridge.send)


async def _in_time(settings: BridgeSettings, call: Awaitable[Reply]) -> Reply | None:
    """Wait for an answer as long as the settings say; None where there is none."""
    with suppress(NoAnswer, TimeoutError):
        async with asyncio.timeout(settings.wait_s):
            return await call
    return None
