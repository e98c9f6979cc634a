"""Alerts as people and machines read them: plain text, Adaptive Card, Slack blocks, signed JSON. Pure.

Everything comes from a message's notices, which hold names of rules, models and parts, counts and shares: there is
nothing of a person to leave out.

Source: Adaptive Cards 1.4 in a ``message`` with attachments, as Teams' Workflows take it [secondary]; Slack's Block
Kit: 150 characters of a header, 3,000 of a section, 50 blocks [secondary].
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from deployr_core.monitoring.alert_rules import Severity
from deployr_core.monitoring.alert_words import WORDS, Words
from deployr_core.monitoring.alerting import Notice, What
from deployr_serve.core.alert_desk import Message
from deployr_serve.outputs.fhir_elements import Resource, identified
from deployr_serve.outputs.webhook import WebhookEvent, signed_post
from deployr_serve.outputs.wording import wire_instant

VERSION = 1
_MOST_SHOWN = 20
_TRYING = Words(
    title="Trial message",
    means="Somebody tries out whether alerts arrive. Nothing has happened.",
    do="Nothing.",
    panel=None,
)
_CATEGORY = "http://terminology.hl7.org/CodeSystem/communication-category"
_COLOURS = {Severity.PAGE: "Attention", Severity.WARN: "Warning", Severity.NOTE: "Default"}


def title_of(message: Message) -> str:
    """Give the message in one line of at most 150 characters."""
    where = f"deployr {message.environment} at {message.site}"
    if message.is_test:
        return f"[TEST] {where}: a trial message, nothing has happened"
    begun, going_on, ended = (
        sum(each.what is what for each in message.notices) for what in (What.BEGUN, What.REMINDER, What.ENDED)
    )
    parts = [
        text
        for count, text in (
            (begun, f"{begun} new"),
            (going_on, f"{going_on} going on"),
            (ended, f"{ended} over"),
        )
        if count
    ]
    first = message.notices[0] if len(message.notices) == 1 else None
    said = _headline(first) if first is not None else f"alerts, {', '.join(parts)}"
    return f"[{message.severity.upper()}] {where}: {said}"[:150]


def text_of(message: Message, *, dashboard: str | None) -> str:
    """Give the whole message as plain text."""
    return "\n\n".join("\n".join(_lines(each, dashboard, is_test=message.is_test)) for each in _shown(message)) + _rest(
        message
    )


def teams_card(message: Message, *, dashboard: str | None) -> bytes:
    """Give the message as an Adaptive Card, as a workflow of Teams takes it."""
    body: list[dict[str, Any]] = [_text_block(title_of(message), weight="Bolder", size="Medium")]
    actions: list[dict[str, Any]] = []
    for each in _shown(message):
        words = _words(each, is_test=message.is_test)
        colour = "Good" if each.what is What.ENDED else _COLOURS[each.severity]
        body += [
            _text_block(_headline(each), weight="Bolder", color=colour, separator=True),
            _text_block(each.said),
            _text_block(f"{words.means} {words.do}", isSubtle=True),
        ]
        if (link := link_of(each, dashboard)) is not None and len(actions) < 5:
            actions.append({"type": "Action.OpenUrl", "title": f"Open {each.model or 'dashboard'}"[:40], "url": link})
    if rest := _rest(message):
        body.append(_text_block(rest.strip()))
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": actions,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return msgspec.json.encode({"type": "message", "attachments": [attachment]})


def slack_blocks(message: Message, *, dashboard: str | None) -> bytes:
    """Give the message as Slack's blocks, with a plain text for notifications."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title_of(message)}},
    ]
    for each in _shown(message):
        words = _words(each, is_test=message.is_test)
        lines = [f"*{_escaped(_headline(each))}*", _escaped(each.said), _escaped(f"{words.means} {words.do}")]
        if (link := link_of(each, dashboard)) is not None:
            lines.append(f"<{_escaped(link)}|Open the panel>")
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:3000]}})
    if rest := _rest(message):
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _escaped(rest.strip())}})
    return msgspec.json.encode({"text": _escaped(title_of(message)), "blocks": blocks})


def signed_event(message: Message, *, dashboard: str | None, key: bytes, now: datetime) -> WebhookEvent:
    """Give the message as JSON with a signature, in the scheme of `deployr_serve.outputs.webhook`.

    All notices are in it, and each has an id of its own. The names are a contract: members are added, never renamed.
    """
    record = {
        "type": "alerts",
        "version": VERSION,
        "message_id": message.message_id,
        "is_test": message.is_test,
        "site": message.site,
        "environment": message.environment,
        "at": wire_instant(message.at),
        "title": title_of(message),
        "alerts": [_record(each, dashboard, is_test=message.is_test) for each in message.notices],
    }
    return signed_post(record, repeat_id=message.message_id, key=key, now=now)


def alert_communication(message: Message, *, dashboard: str | None, recipients: tuple[str, ...]) -> Resource:
    """Give the message as a FHIR Communication to staff; it has no subject, for it is about no patient.

    Source: FHIR R4 communication.html [seen].
    """
    return {
        **identified("Communication", message.message_id),
        "status": "completed",
        "category": [{"coding": [{"system": _CATEGORY, "code": "alert"}]}],
        "priority": "urgent" if message.severity is Severity.PAGE and not message.is_test else "routine",
        "topic": {"text": title_of(message)},
        "sent": wire_instant(message.at),
        "recipient": [{"reference": each} for each in recipients],
        "payload": [{"contentString": text_of(message, dashboard=dashboard)}],
    }


def link_of(notice: Notice, dashboard: str | None) -> str | None:
    """Give the address of the panel that explains a notice; None where no dashboard is configured."""
    if dashboard is None:
        return None
    panel = WORDS[notice.rule].panel if notice.rule in WORDS else None
    if not notice.model or panel is None:
        return dashboard
    return f"{dashboard}/model?{urlencode({'model': notice.model, 'panel': panel})}"


def _headline(notice: Notice) -> str:
    words = _words(notice, is_test=False)
    about = f"{notice.model} ({notice.part})" if notice.model and notice.part else notice.model or notice.part
    ending = {What.BEGUN: "", What.REMINDER: " – still", What.ENDED: " – over"}[notice.what]
    return f"{words.title}{f': {about}' if about else ''}{ending}"


def _lines(notice: Notice, dashboard: str | None, *, is_test: bool) -> list[str]:
    words = _words(notice, is_test=is_test)
    since = f"Since {notice.begun_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC. {notice.severity.capitalize()}."
    lines = [_headline(notice), notice.said, since, words.means]
    if notice.what is not What.ENDED:
        lines.append(words.do)
    link = link_of(notice, dashboard)
    lines.append(f"Alert: {notice.key}")
    return lines if link is None else [*lines, link]


def _record(notice: Notice, dashboard: str | None, *, is_test: bool) -> Mapping[str, Any]:
    words = _words(notice, is_test=is_test)
    return {
        "id": notice.notice_id,
        "what": notice.what.value,
        "alert": notice.key,
        "rule": notice.rule,
        "model": notice.model or None,
        "part": notice.part or None,
        "severity": notice.severity.value,
        "begun_at": wire_instant(notice.begun_at),
        "at": wire_instant(notice.at),
        "said": notice.said,
        "means": words.means,
        "do": words.do,
        "link": link_of(notice, dashboard),
    }


def _words(notice: Notice, *, is_test: bool) -> Words:
    return _TRYING if is_test else WORDS.get(notice.rule, _TRYING)


def _shown(message: Message) -> tuple[Notice, ...]:
    ordered = sorted(message.notices, key=lambda each: (each.what is What.ENDED, -each.severity.rank, each.key))
    return tuple(ordered[:_MOST_SHOWN])


def _rest(message: Message) -> str:
    left = len(message.notices) - _MOST_SHOWN
    return f"\n\nAnd {left} more: deployr alerts list" if left > 0 else ""


def _text_block(text: str, **style: object) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True, **style}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
