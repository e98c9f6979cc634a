"""Which later results answer a prediction, and what they say: one definition, for training and for observed labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from deployr_core.codes import LOINC, Code
from deployr_core.facts import Lab
from deployr_core.label_rules import LEVELS, Answer, LabComponent, LabRule
from deployr_core.units import canonical_value, conversion_factor

LabelValue = float | str | Mapping[str, float]
"""A label as people read it: 0.0 or 1.0, or a number; the name of a class; or 0.0 or 1.0 for each label by name."""


class RuleFailed(ValueError):
    """The rule could not be evaluated over what was found. The message holds nothing of it."""


class Unanswered(StrEnum):
    """Why nothing is said of what was asked; the codes are those of the glossary.

    Of the first three, and of those alone, time may still bring the answer.
    """

    NO_RESULT = "no-result"
    NOT_ENDED = "not-ended"
    NOT_FOLLOWED = "not-followed"
    NO_RANGE = "no-reference-range"
    NO_NUMBER = "no-usable-number"
    NO_VISIT = "no-visit"
    TRANSFERRED = "transferred-out"
    DEAD_BEFORE = "dead-before"
    DIED = "died"
    COARSE_DATE = "coarse-date"
    NO_ANSWER = "no-usable-answer"

    @property
    def may_come(self) -> bool:
        """True if the answer may still come."""
        return self in {Unanswered.NO_RESULT, Unanswered.NOT_ENDED, Unanswered.NOT_FOLLOWED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What is said.

    ``at``: when it happened, of several the last. ``known_at``: from when on all of it could be known. ``sources``: ids
    of the facts that it was read from; empty where it was read from nothing having happened until then.
    """

    value: LabelValue
    at: datetime
    known_at: datetime
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LabComponentRule:
    """What is the component of this very order?

    ``components``: the LOINC codes that a laboratory may report it under, the preferred one first. ``window``: how long
    after the index time a result may be released; what comes later is no answer to this order. ``answer`` and ``unit``:
    what is read from the result, see `deployr_core.label_rules.LabComponent`.
    """

    components: tuple[str, ...]
    window: timedelta
    answer: Answer = Answer.ABNORMAL
    unit: str | None = None

    @classmethod
    def of(cls, declared: LabComponent) -> LabComponentRule:
        """Give the rule that a task or a manifest declares."""
        return cls(
            components=declared.components,
            window=timedelta(hours=declared.window_hours),
            answer=declared.answer,
            unit=declared.unit,
        )

    def ripe_at(self, as_of: datetime) -> datetime:
        """Give the instant from which on no further result can count."""
        return as_of + self.window

    def deciding_result(self, labs: Iterable[Lab], *, as_of: datetime, order_id: str | None) -> Lab | None:
        """Choose the result that decides the label, or None while there is none.

        Only results released before ``as_of + window`` count. Those linked to the order come first, whenever their
        specimen was taken; where none is linked, those that are linked to no order at all and whose specimen was taken
        in ``[as_of, as_of + window)``. Of one specimen what was released last counts: a corrected result replaces the
        one it corrects. Of several specimens or components, one that says what is asked counts before one that does
        not, then the preferred component, then the earliest specimen.

        Args:
            labs: the patient's results; others than the component's are passed over.
            as_of: the index time.
            order_id: which order was predicted; None if that is not known.
        """
        rank = {Code(LOINC, code): place for place, code in enumerate(self.components)}
        end = self.ripe_at(as_of)
        linked: dict[tuple[int, datetime], Lab] = {}
        unlinked: dict[tuple[int, datetime], Lab] = {}
        for lab in labs:
            place = min((rank[code] for code in lab.codes if code in rank), default=None)
            if place is None or lab.known_at >= end:
                continue
            if order_id is not None and lab.order_id == order_id:
                candidates = linked
            elif lab.order_id is None and as_of <= lab.at < end:
                candidates = unlinked
            else:
                continue
            held = candidates.setdefault((place, lab.at), lab)
            candidates[place, lab.at] = max(held, lab, key=lambda lab: (lab.known_at, lab.fact_id))
        chosen = min(
            (linked or unlinked).items(), key=lambda item: (self.reading(item[1]) is None, *item[0]), default=None
        )
        return chosen[1] if chosen else None

    def reading(self, lab: Lab) -> float | str | None:
        """Say what is asked of a result; None where it does not tell."""
        match self.answer:
            case Answer.ABNORMAL:
                abnormal = is_abnormal(lab)
                return None if abnormal is None else float(abnormal)
            case Answer.LEVEL:
                return level(lab)
            case Answer.VALUE:
                return self._number(lab)
            case _:
                assert_never(self.answer)

    def answered(self, labs: Iterable[Lab], *, as_of: datetime, order_id: str | None) -> Answered | Unanswered:
        """Give what the deciding result says, or why nothing is said yet; for the arguments see `deciding_result`."""
        result = self.deciding_result(labs, as_of=as_of, order_id=order_id)
        if result is None:
            return Unanswered.NO_RESULT
        value = self.reading(result)
        if value is None:
            return Unanswered.NO_NUMBER if self.answer is Answer.VALUE else Unanswered.NO_RANGE
        return Answered(value=value, at=result.at, known_at=result.known_at, sources=(result.fact_id,))

    def _number(self, lab: Lab) -> float | None:
        if lab.value is None or not math.isfinite(lab.value) or self.unit is None:
            return None
        code = next((code for code in self.components if Code(LOINC, code) in lab.codes), None)
        factor = None if code is None else conversion_factor(Code(LOINC, code), unit=lab.unit, wanted=self.unit)
        return None if factor is None else canonical_value(lab.value, factor)


def label_of_results(
    rule: LabRule, labs: Iterable[Lab], *, as_of: datetime, order_id: str | None
) -> Answered | Unanswered:
    """Read a label from results, as training and service both do it.

    A panel's label is there when that of each component is. Of several reasons why it is not, a missing result goes
    first: it may still come.

    Args:
        rule: what is read, from which results.
        labs: the patient's results.
        as_of: the index time.
        order_id: which order was predicted; None if that is not known.
    """
    if isinstance(rule, LabComponent):
        return LabComponentRule.of(rule).answered(labs, as_of=as_of, order_id=order_id)
    held = tuple(labs)
    found = {
        name: LabComponentRule.of(rule.of(name)).answered(held, as_of=as_of, order_id=order_id) for name in rule.names
    }
    missing = [each for each in found.values() if isinstance(each, Unanswered)]
    if missing:
        return Unanswered.NO_RESULT if Unanswered.NO_RESULT in missing else missing[0]
    read = {name: each for name, each in found.items() if isinstance(each, Answered)}
    return Answered(
        value={name: each.value for name, each in read.items() if isinstance(each.value, float)},
        at=max(each.at for each in read.values()),
        known_at=max(each.known_at for each in read.values()),
        sources=tuple(source for each in read.values() for source in each.sources),
    )


def label_numbers(value: LabelValue) -> float | tuple[float, ...]:
    """Give a label as models are trained with it: a class by its place, several labels in the order of their names."""
    match value:
        case str():
            return float(LEVELS.index(value))
        case Mapping():
            return tuple(value[name] for name in sorted(value))
        case _:
            return value


def is_abnormal(lab: Lab) -> bool | None:
    """Say if the result is outside its reference range; by the laboratory's own flag where it sent no range; else None.

    The bounds belong to the range, and a missing bound is no limit.

    Source: FHIR R4 Observation.referenceRange,
    http://hl7.org/fhir/R4/observation-definitions.html#Observation.referenceRange.
    """
    side = _side(lab)
    return lab.abnormal if side is None else side != "normal"


def level(lab: Lab) -> str | None:
    """Say on which side of its reference range the result is; None where that cannot be told.

    Without a range, the laboratory's flag can say normal; that it says abnormal does not tell on which side.
    """
    side = _side(lab)
    return "normal" if side is None and lab.abnormal is False else side


def _side(lab: Lab) -> str | None:
    if lab.value is None or not math.isfinite(lab.value) or (lab.reference_low is None and lab.reference_high is None):
        return None
    if lab.reference_low is not None and lab.value < lab.reference_low:
        return "low"
    if lab.reference_high is not None and lab.value > lab.reference_high:
        return "high"
    return "normal"
