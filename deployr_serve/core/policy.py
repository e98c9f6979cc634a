"""What a site does with one model's scores: one deployment file per model, as data.

A policy says how the model takes part in care, from which score on it advises and in which words, whom it leaves alone,
where its scores go, and by which trial chance decides. It is validated when the app starts, and its digest stands in
every packet that it decided about.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from string import Formatter
from typing import Any

import msgspec

from deployr_core.packet import Mode
from deployr_core.postprocess import percent, written
from deployr_core.trial import RandomizationUnit, Trial
from deployr_serve.core.schedule import parse_schedule

SCHEMA_VERSION = 1
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}[a-z0-9]\Z")
"""What a model, a group or an output may be called."""

LONGEST_HEADLINE = 139
"""In characters. Source: https://cds-hooks.hl7.org/2.0/#card-attributes, ``summary``: under 140."""
_LONGEST_DETAIL = 4000
_BLANKS = frozenset({"score", "score_percent", "band"})
ONE_NUMBER = frozenset({"score-column", "flowsheet", "smart-data", "observation"})
"""The outputs whose target takes one number for a score."""
MESSAGE_BLANKS = frozenset({"score_name", "score", "label", "model", "version", "as_of"})
MESSAGE = (
    "{score_name}: {score}",
    "Predicted: {label}.",
    "Model {model} {version}, as of {as_of}.",
    "Made by a computer from the record; no clinician has reviewed it.",
)


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is as it is by default is not written, so that a digest survives keys that come in later."""


class Indicator(StrEnum):
    """How urgent an advisory looks."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class CodedReason(_Declared, frozen=True, kw_only=True):
    """A reason that a clinician may give for not following the advice."""

    code: str
    display: str
    system: str = "urn:deployr:override-reason"


class Link(_Declared, frozen=True, kw_only=True):
    """Somewhere to read more. ``url`` carries nothing about a patient; ``smart`` launches it as a SMART app."""

    label: str
    url: str
    smart: bool = False

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise ValueError("expected a link's url to start with https://")


class ActionKind(StrEnum):
    """What a suggestion does when it is taken up."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Action(_Declared, frozen=True, kw_only=True):
    """One step of a suggestion. ``resource``: FHIR, without the patient, whom the channel fills in.

    ``delete`` takes back the order that the request is about, and so has no resource.
    """

    kind: ActionKind
    description: str
    resource: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.resource is None) != (self.kind is ActionKind.DELETE):
            raise ValueError("expected a resource to create or update, and none to delete")


class Suggestion(_Declared, frozen=True, kw_only=True):
    """What a clinician can do about it with one click, where the channel offers that."""

    label: str
    actions: tuple[Action, ...] = ()
    recommended: bool = False


class Advisory(_Declared, frozen=True, kw_only=True):
    """What an advisory says.

    ``headline`` and ``detail`` are templates with the blanks ``{score}``, ``{score_percent}`` and ``{band}``; a
    headline is short enough whatever is filled in. ``detail`` may be GitHub-flavoured Markdown.
    """

    headline: str
    detail: str = ""
    indicator: Indicator = Indicator.INFO
    source_label: str = "deployr"
    acknowledge_reasons: tuple[CodedReason, ...] = ()
    links: tuple[Link, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()

    def __post_init__(self) -> None:
        for name, text in (("headline", self.headline), ("detail", self.detail)):
            _check_template(name, text, blanks=_BLANKS)
        if not self.headline.strip() or "\n" in self.headline:
            raise ValueError("expected a headline of one line")
        if len(self.detail) > _LONGEST_DETAIL:
            raise ValueError(f"expected a detail of at most {_LONGEST_DETAIL} characters")
        if not self.source_label.strip():
            raise ValueError("expected a source_label that says who advises")
        codes = [(reason.system, reason.code) for reason in self.acknowledge_reasons]
        if len(set(codes)) != len(codes):
            raise ValueError("expected each of acknowledge_reasons once")


class Band(_Declared, frozen=True, kw_only=True):
    """A name for scores from ``at_least`` on, up to the next band."""

    name: str
    at_least: float

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 40:
            raise ValueError("expected a band's name of 1 to 40 characters")
        if not math.isfinite(self.at_least):
            raise ValueError("expected at_least to be a finite number")


class SuppressionUnit(StrEnum):
    """For whom an advisory counts as given."""

    PATIENT = "patient"
    ENCOUNTER = "encounter"


class Suppression(_Declared, frozen=True, kw_only=True):
    """When an advisory that would be given is not.

    ``hours``: none within so many hours of the last one for the same unit. ``hours_after_response``: none within so
    many hours of an answer to the last one: acknowledged, accepted or overridden; None: an answer changes nothing.
    """

    hours: float
    hours_after_response: float | None = None
    unit: SuppressionUnit = SuppressionUnit.PATIENT

    def __post_init__(self) -> None:
        for each in (self.hours, self.hours_after_response or 0.0):
            if not 0.0 <= each <= 24 * 366:
                raise ValueError("expected hours from 0 to a year")


class TimeBlock(_Declared, frozen=True, kw_only=True):
    """How time is cut where blocks of it are randomized: each ``hours`` long, one of them beginning at ``starts``."""

    hours: int
    starts: datetime

    def __post_init__(self) -> None:
        if not 1 <= self.hours <= 24 * 366:
            raise ValueError("expected a time block of 1 hour to a year")
        if self.starts.tzinfo is None:
            raise ValueError("expected starts with its offset, such as 2026-01-05T07:00:00-05:00")


class Policy(_Declared, frozen=True, kw_only=True):
    """One model's deployment.

    ``threshold``: advises at and above it; None never advises. ``bands``: from the lowest on. ``outputs``: the ways out
    that get scores, None for all that are configured; ``when_advised``: which of them get only what is advised.
    ``scores_in_every_arm``: in a trial, the other outputs get the scores of hidden advisories too: right only where no
    clinician sees them there. ``groups``: what the model is asked along with. ``explain``: whether contributions are
    made. ``decimals``: to how many the score is rounded where people read it, a probability as a fraction of 1, so that
    3 are one in per cent; None: to 2, in per cent too, and not at all for programs. ``packed_in``: which outputs get
    the alert and the score as one decimal; see `deployr_core.postprocess.packed_alert`. ``message``: the lines that
    texts consist of, after the words of the advisory where there is one, with the blanks of `MESSAGE_BLANKS`. ``form``:
    whether people may try the model on a page with values that they type; not where somebody must not see its scores.
    ``label_schedule``: when its labels are extracted, NCRONTAB in UTC; None: with those of the other models.
    ``shadows``: runs of the same model, by id, that score silently what this one is asked.
    ``keep_facts_days``: for how long what was fetched is kept, sealed; None keeps none of it. ``read_insurance``: the
    EMR is asked who pays, one more search for each inference, and the packet says which class of payer it is.

    Raises:
        ValueError: a trial without its parts, a threshold that is no number, or words that cannot be filled in.
    """

    schema_version: int
    model: str
    mode: Mode
    threshold: float | None = None
    bands: tuple[Band, ...] = ()
    suppression: Suppression | None = None
    trial: Trial | None = None
    time_block: TimeBlock | None = None
    outputs: tuple[str, ...] | None = None
    when_advised: tuple[str, ...] = ()
    scores_in_every_arm: bool = False
    advisory: Advisory | None = None
    explain: bool = True
    decimals: int | None = None
    packed_in: tuple[str, ...] = ()
    message: tuple[str, ...] = MESSAGE
    groups: tuple[str, ...] = ()
    form: bool = False
    label_schedule: str | None = None
    shadows: tuple[str, ...] = ()
    keep_facts_days: int | None = None
    read_insurance: bool = False

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}")
        for name in (self.model, *self.groups, *(self.outputs or ()), *self.when_advised, *self.shadows):
            if not NAME.match(name):
                raise ValueError("expected names of lower-case letters, digits and hyphens, such as hematocrit")
        if len(set(self.shadows)) != len(self.shadows) or self.model in self.shadows:
            raise ValueError("expected each of shadows once, and no model as its own")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError("expected threshold to be a finite number")
        if any(low.at_least >= high.at_least for low, high in pairwise(self.bands)):
            raise ValueError("expected bands from the lowest at_least to the highest")
        if self.decimals is not None and not 0 <= self.decimals <= 15:
            raise ValueError("expected decimals from 0 to 15")
        if self.outputs is not None and not set(self.when_advised) <= set(self.outputs):
            raise ValueError("expected when_advised to name some of outputs")
        self._check_what_is_seen()
        if self.mode is Mode.TRIAL and (self.trial is None or self.threshold is None):
            raise ValueError("expected a trial and a threshold in mode trial")
        of_time = self.trial is not None and self.trial.unit is RandomizationUnit.TIME_BLOCK
        if of_time != (self.time_block is not None):
            raise ValueError("expected a time_block with a trial of time blocks, and with no other")
        if self.advisory is not None:
            _check_headline(self.advisory.headline, bands=self.bands)

    def _check_what_is_seen(self) -> None:
        if not set(self.packed_in) <= ONE_NUMBER:
            raise ValueError(f"expected packed_in to name some of {', '.join(sorted(ONE_NUMBER))}")
        if self.packed_in and self.mode is Mode.TRIAL and self.scores_in_every_arm:
            raise ValueError("expected no packed_in where scores go out in every arm: the alert would tell them apart")
        if not self.message:
            raise ValueError("expected a message of at least one line")
        for line in self.message:
            _check_template("message", line, blanks=MESSAGE_BLANKS)
        if self.keep_facts_days is not None and not 1 <= self.keep_facts_days <= 366 * 30:
            raise ValueError("expected keep_facts_days from 1 to 30 years")
        if self.label_schedule is not None:
            parse_schedule(self.label_schedule, zone=UTC)
        if self.form and self.mode is not Mode.LIVE:
            raise ValueError("expected form only in mode live: in another one scores are kept from people")

    @property
    def sha256(self) -> str:
        """Give the digest of the policy: of what it says, however its file is laid out."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def band(self, score: float) -> str | None:
        """Give the name of the score's band; None under the lowest, or where there are none."""
        return next((band.name for band in reversed(self.bands) if score >= band.at_least), None)

    def in_words(self, template: str, score: float) -> str:
        """Fill in a template of the advisory: ``{score}`` to ``decimals``, 2 if it says none, and in whole per cent."""
        return _filled(template, score=score, band=self.band(score) or "", decimals=self.decimals)

    def as_it_is(self, score: float) -> str:
        """Write a score on its own scale, rounded only where ``decimals`` says so."""
        score += 0.0  # a zero loses its sign
        return repr(score) if self.decimals is None else written(score, decimals=self.decimals)

    def number(self, score: float, *, is_probability: bool) -> str:
        """Write a score as people read it where it stands alone: a probability in per cent, else as it is.

        Raises:
            ScoreUnusable: it is no number that may be shown.
        """
        decimals = 2 if self.decimals is None else self.decimals
        if not is_probability:
            return written(score, decimals=decimals)
        return written(percent(score), decimals=2 if self.decimals is None else max(decimals - 2, 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Policies:
    """The policies in force. A model without a file is live, never advises, and goes to all outputs."""

    declared: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, model_id: str) -> Policy:
        """Give the policy of a model."""
        declared = self.declared.get(model_id)
        return declared or Policy(schema_version=SCHEMA_VERSION, model=model_id, mode=Mode.LIVE)

    def in_group(self, group: str) -> tuple[str, ...]:
        """Give the models of a group in order of id; empty if there is no such group."""
        return tuple(sorted(model for model, policy in self.declared.items() if group in policy.groups))


def _check_template(name: str, text: str, *, blanks: frozenset[str]) -> None:
    try:
        # Only bare blanks: a format or an attribute could reach further than into a number.
        is_one = all(
            blank is None or (blank in blanks and not spec and conversion is None)
            for _, blank, spec, conversion in Formatter().parse(text)
        )
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(f"expected {name} with no other blanks than {{{'}, {'.join(sorted(blanks))}}}")


def _check_headline(headline: str, *, bands: tuple[Band, ...]) -> None:
    longest_band = max((band.name for band in bands), key=len, default="")
    if len(_filled(headline, score=-99999.0, band=longest_band, decimals=None)) > LONGEST_HEADLINE:
        raise ValueError(f"expected a headline of at most {LONGEST_HEADLINE} characters once it is filled in")


def _filled(template: str, *, score: float, band: str, decimals: int | None) -> str:
    score += 0.0  # a zero loses its sign
    digits = 2 if decimals is None else decimals
    in_percent = written(100 * score, decimals=0)
    return template.format(
        score=written(score, decimals=digits, padded=True), score_percent=f"{in_percent} %", band=band
    )
