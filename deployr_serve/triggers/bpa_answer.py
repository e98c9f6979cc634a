"""The answer of the CDA-XML channel: an advisory, or one constant document that says there is none. Pure.

Whatever the reason for which nothing is advised, the bytes are the same: a silent deployment, a control arm, a low
score, a rejected request and a failure cannot be told apart by them, so that nothing in a chart unblinds a trial.

Source: ours, ``urn:deployr:bpa:1``, bpa.xsd and docs/bpa.md; the classic web service has no public schema [assumed].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployr_core.packet import Abstained, Failed, InferencePacket, Rejected, Scored
from deployr_core.reasons import Reason
from deployr_serve.core.errors import UNEXPECTED, Abstain, AskDifferently, ServeError
from deployr_serve.core.policy import Indicator, Policy
from deployr_serve.triggers.bpa_xml import Stylesheet, element, written

NAMESPACE = "urn:deployr:bpa:1"
LONGEST_HEADLINE = 140
"""In characters, as the schema has it."""
_URGENCY = {Indicator.CRITICAL: 0, Indicator.WARNING: 1, Indicator.INFO: 2}


class Answers:
    """Renders a site's answers. ``none`` is the one that advises nothing, rendered once.

    Args:
        stylesheet: the site's; None leaves the answers as the schema has them.

    Raises:
        ValueError: the stylesheet makes no document of one of the two kinds of answer.
    """

    def __init__(self, stylesheet: Stylesheet | None = None) -> None:
        self._stylesheet = stylesheet
        self.none = self._styled(_response(_said("Outcome", "none")))
        self._styled(_response(*_parts(packet_id="p" + 32 * "0", model=("model", "1.0.0"), score="0.5")))

    def advice(self, packet: InferencePacket, policy: Policy, *, because: Sequence[Reason]) -> bytes:
        """Render the advisory of a packet whose decision is to advise.

        Args:
            packet: scored, and to be advised.
            policy: the one in force.
            because: the largest contributions to the score, in words.

        Raises:
            ValueError: nothing is to be advised, or the site's stylesheet fails on it.
        """
        outcome = packet.outcome
        if not isinstance(outcome, Scored) or outcome.decision is None or policy.advisory is None:
            raise ValueError("expected a packet whose decision is to advise, and words to advise in")
        score, threshold, advisory = outcome.score, outcome.decision.threshold, policy.advisory
        parts = _parts(
            packet_id=packet.packet_id,
            model=(packet.model.model_id, packet.model.version),
            score=policy.as_it_is(score),
            threshold=None if threshold is None else repr(threshold),
            headline=policy.in_words(advisory.headline, score)[:LONGEST_HEADLINE],
            detail=policy.in_words(advisory.detail, score),
            reasons=[_said("Reason", one.text, feature=one.concept, contribution=repr(one.value)) for one in because],
            acknowledging=[_said("Reason", one.display, code=one.code) for one in advisory.acknowledge_reasons],
        )
        return self._styled(_response(*parts))

    def _styled(self, answer: bytes) -> bytes:
        return answer if self._stylesheet is None else self._stylesheet.transformed(answer)


def chosen(advised: Sequence[tuple[InferencePacket, Policy]]) -> tuple[InferencePacket, Policy] | None:
    """Give the one advisory of a group that is shown: the most urgent, of equals the first; None if there is none.

    A policy without words for it has none, as in every channel.
    """
    urgent = [
        (_URGENCY[policy.advisory.indicator], number)
        for number, (packet, policy) in enumerate(advised)
        if policy.advisory is not None and packet.is_advised
    ]
    return advised[min(urgent)[1]] if urgent else None


def outcome_in_header(packets: Sequence[InferencePacket]) -> str:
    """Say for the integration engine how it went: ``scored``, whatever was decided about the score, or why not.

    Of a group it is ``scored`` if any of its models scored.
    """
    outcomes = [packet.outcome for packet in packets]
    if any(isinstance(outcome, Scored) for outcome in outcomes):
        return "scored"
    for outcome in outcomes:
        if isinstance(outcome, Abstained | Rejected | Failed):
            return f"{outcome.__struct_config__.tag};code={outcome.reason}"
    return f"failed;code={UNEXPECTED}"


def outcome_of_error(error: ServeError) -> str:
    """Say the same of an error that left no packet."""
    match error:
        case AskDifferently():
            return f"rejected;code={error.reason}"
        case Abstain():
            return f"abstained;code={error.reason}"
        case _:
            return f"failed;code={error.reason}"


def _parts(
    *,
    packet_id: str,
    model: tuple[str, str],
    score: str,
    threshold: str | None = None,
    headline: str = "-",
    detail: str = "",
    reasons: Sequence[Any] = (),
    acknowledging: Sequence[Any] = (),
) -> list[Any]:
    model_id, version = model
    return [
        _said("PacketId", packet_id),
        element(_named("Model"), id=model_id, version=version),
        _said("Outcome", "advise"),
        _said("Score", score),
        *([] if threshold is None else [_said("Threshold", threshold)]),
        _said("Headline", headline),
        *([_said("Detail", detail)] if detail else []),
        *([element(_named("Reasons"), *reasons)] if reasons else []),
        *([element(_named("AcknowledgeReasons"), *acknowledging)] if acknowledging else []),
    ]


def _response(*parts: Any) -> bytes:
    return written(element(_named("AdvisoryResponse"), *parts, version="1"))


def _said(name: str, text: str, **attributes: str) -> Any:
    return element(_named(name), text=text, **attributes)


def _named(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"
