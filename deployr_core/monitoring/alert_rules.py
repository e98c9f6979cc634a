"""What is watched, as data: a rule for each thing that can go wrong, with defaults, and the file that changes them.

A site's `alerts.yaml` changes single values for all models and, over that, for one model. What a rule means and what to
do about it is in `deployr_core.monitoring.alert_words`, how it decides in `alerting_operations` and
`alerting_statistics`, and how the limits were chosen in docs/alerts.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from deployr_core.strict_yaml import YamlInvalid, parse_yaml

SCHEMA_VERSION = 1


class Severity(StrEnum):
    """``page``: somebody is woken. ``warn``: somebody looks today. ``note``: somebody looks when they come by."""

    NOTE = "note"
    WARN = "warn"
    PAGE = "page"

    @property
    def rank(self) -> int:
        """Give 0 for a note, 1 for a warning, 2 for a page."""
        return list(Severity).index(self)


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all rules have.

    ``begin_minutes``: for how long it must hold before it is told; ``end_minutes``: for how long it must not hold
    before it is over. Both keep an alert from flapping.
    """

    severity: Severity = Severity.WARN
    enabled: bool = True
    begin_minutes: int = 0
    end_minutes: int = 30

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"expected {name} to be a number of at least 0")
            if name in _SHARES and value > 1:
                raise ValueError(f"expected {name} to be a share from 0 to 1")
            if name in _ABOVE_ZERO and value == 0:
                raise ValueError(f"expected {name} to be above 0")


_SHARES = frozenset({"least_share", "least_rise", "chance", "of_deadline", "bar", "least_shift"})
_ABOVE_ZERO = frozenset(
    {"chance", "false_alarms_per_year", "times", "width", "weight", "hours"}
    | {"least_packets", "least_expected", "least_units", "least_of_class", "timer_minutes", "nightly_hours"}
)
"""Some are divided by; with others at 0 the rule would hold always, or never."""
_NIGHTLY = 36 * 60
"""Of what is looked at once a night: over when two looks in a row find nothing."""
_FIVE_NIGHTS = (4 * 24 - 6) * 60
"""Looked at each night, a window of four weeks crosses a limit by chance more often than once in four weeks."""


class Silence(Rule, frozen=True, kw_only=True):
    """The dead-man's switch. ``longest_hours``: declared; None learns it from the deployment's own hours of the week.

    ``false_alarms_per_year``: what the learnt limit is derived from. ``least_minutes``: a shorter silence is none.
    """

    severity: Severity = Severity.PAGE
    longest_hours: float | None = None
    false_alarms_per_year: float = 0.5
    least_minutes: int = 30
    end_minutes: int = 0


class Share(Rule, frozen=True, kw_only=True):
    """A sudden rise of a share, over the shortest of 1, 3, 6, 12, 24 and 72 hours with ``least_packets``, or the last.

    ``least_share``: under it nobody is told. ``chance``: how rarely chance alone does it in one look.
    """

    least_packets: int = 20
    least_share: float = 0.05
    chance: float = 1e-6
    begin_minutes: int = 5


class Trend(Rule, frozen=True, kw_only=True):
    """A small lasting rise of a daily share: an EWMA of ``weight``, ``width`` of its standard errors wide.

    ``least_rise``: by fewer percentage points (as a share) nobody is told. ``least_packets``: of a day that counts.
    """

    weight: float = 0.2
    width: float = 3.5
    least_rise: float = 0.01
    least_packets: int = 20
    end_minutes: int = 24 * 60

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight > 1:
            raise ValueError("expected weight to be at most 1")


class Latency(Rule, frozen=True, kw_only=True):
    """The 95th percentile of answers that somebody waits for, above ``of_deadline`` of the site's deadline."""

    of_deadline: float = 0.8
    least_packets: int = 20
    chance: float = 1e-6
    begin_minutes: int = 5


class Volume(Rule, frozen=True, kw_only=True):
    """24 hours with fewer than 1 / ``times`` or more than ``times`` as many packets as such hours usually have."""

    times: float = 2.0
    chance: float = 1e-6
    least_expected: int = 20
    end_minutes: int = 180

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times <= 1:
            raise ValueError("expected times to be above 1")


class GivenUp(Rule, frozen=True, kw_only=True):
    """Deliveries given up within ``hours``, ``at_least`` so many to one output."""

    at_least: int = 1
    hours: float = 24.0
    end_minutes: int = 0


class Waiting(Rule, frozen=True, kw_only=True):
    """Something has waited for longer than ``longest_minutes``."""

    severity: Severity = Severity.PAGE
    longest_minutes: int = 30
    end_minutes: int = 10


class Unavailable(Rule, frozen=True, kw_only=True):
    """Something that everything needs does not answer."""

    severity: Severity = Severity.PAGE
    begin_minutes: int = 8
    end_minutes: int = 8


class Evaluator(Rule, frozen=True, kw_only=True):
    """Who evaluates the other half of the rules has not run: the app's timer, or the nightly command."""

    severity: Severity = Severity.PAGE
    timer_minutes: int = 60
    nightly_hours: float = 50.0
    end_minutes: int = 0


class Coverage(Rule, frozen=True, kw_only=True):
    """The share of packets that have anything of a group of features, ``least_rise`` lower than in the reference."""

    least_rise: float = 0.05
    least_packets: int = 100
    end_minutes: int = _NIGHTLY


class LabelsOverdue(Rule, frozen=True, kw_only=True):
    """Labels that could be known for ``days`` and are not, ``least_share`` of those that could."""

    days: float = 3.0
    least_share: float = 0.05
    least_packets: int = 20
    end_minutes: int = 0


class Auroc(Rule, frozen=True, kw_only=True):
    """The interval lies wholly below the one of held-out rows; with a ``bar``, wholly below the bar.

    ``least_of_class``: labels of each class that it takes.
    """

    bar: float | None = None
    least_of_class: int = 50
    begin_minutes: int = _FIVE_NIGHTS
    end_minutes: int = _NIGHTLY


class Calibration(Rule, frozen=True, kw_only=True):
    """Mean score less observed share: its interval wholly beyond ``least_shift`` to either side."""

    least_shift: float = 0.03
    least_of_class: int = 50
    begin_minutes: int = _FIVE_NIGHTS
    end_minutes: int = _NIGHTLY


class DriftRule(Rule, frozen=True, kw_only=True):
    """What `deployr_core.monitoring.drift_alarm` decides; ``least_shift``: only if the mean score moved by so much."""

    least_shift: float = 0.0
    end_minutes: int = _NIGHTLY


class SampleRatioRule(Rule, frozen=True, kw_only=True):
    """Arms of other sizes than the chances they were drawn with, by a test at ``chance``."""

    chance: float = 0.0005
    least_units: int = 50
    end_minutes: int = _NIGHTLY


class Overrides(Rule, frozen=True, kw_only=True):
    """The share of shown advisories that is overridden; the interval's lower bound above ``bar``."""

    severity: Severity = Severity.NOTE
    bar: float = 0.9
    least_packets: int = 50
    end_minutes: int = _NIGHTLY


class Burden(Rule, frozen=True, kw_only=True):
    """Advisories a day, interval wholly above ``per_day``; None: above ``times`` those of the reference period."""

    severity: Severity = Severity.NOTE
    per_day: float | None = None
    times: float = 2.0
    end_minutes: int = _NIGHTLY


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A rule of every name; those up to ``evaluator`` are looked at by the app's timer, the others each night."""

    silence: Silence = Silence()
    failures: Share = Share(severity=Severity.PAGE)
    failure_trend: Trend = Trend()
    abstentions: Share = Share(least_share=0.2)
    abstention_trend: Trend = Trend(severity=Severity.NOTE, least_rise=0.05)
    latency: Latency = Latency()
    volume: Volume = Volume()
    deliveries_given_up: GivenUp = GivenUp()
    deliveries_waiting: Waiting = Waiting()
    spool: Waiting = Waiting(longest_minutes=15)
    store: Unavailable = Unavailable()
    evaluator: Evaluator = Evaluator()
    coverage: Coverage = Coverage()
    labels_overdue: LabelsOverdue = LabelsOverdue()
    auroc: Auroc = Auroc()
    calibration: Calibration = Calibration()
    drift: DriftRule = DriftRule()
    sample_ratio: SampleRatioRule = SampleRatioRule()
    overrides: Overrides = Overrides()
    burden: Burden = Burden()


NAMES: tuple[str, ...] = Rules.__struct_encode_fields__
OF_THE_SITE = frozenset({"deliveries-given-up", "deliveries-waiting", "spool", "store", "evaluator"})
"""Rules that are about no single model, so that a model cannot change them."""


class AlertRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in force. ``least``: by sink, the least severity that it is told of. ``remind_hours``: see `alerting`.

    ``by_model``: what the site's file says of single models.
    """

    rules: Rules = Rules()
    remind_hours: float = 24.0
    least: Mapping[str, Severity] = {}
    by_model: Mapping[str, Rules] = {}

    def of(self, model_id: str) -> Rules:
        """Give the rules of a model; those of the site for the empty name."""
        return self.by_model.get(model_id, self.rules)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: int
    remind_hours: float = 24.0
    least: Mapping[str, Severity] = {}
    rules: Mapping[str, Mapping[str, Any]] = {}
    models: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}


def parse_alert_rules(content: bytes) -> AlertRules:
    """Read `alerts.yaml`: what it does not say stays at its default.

    Raises:
        YamlInvalid: not of that shape; the message names the rule and the key.
    """
    file = parse_yaml(content, _File)
    if file.schema_version != SCHEMA_VERSION:
        raise YamlInvalid(f"expected schema_version {SCHEMA_VERSION}")
    if not 0 < file.remind_hours < math.inf:
        raise YamlInvalid("expected remind_hours to be above 0")
    unknown = set(file.least) - set(SINKS)
    if unknown:
        raise YamlInvalid(f"expected least to name some of {', '.join(SINKS)}, got {', '.join(sorted(unknown))}")
    for_all = _changed(Rules(), file.rules, where="rules")
    by_model = {}
    for model_id, changes in file.models.items():
        if of_site := OF_THE_SITE & set(changes):
            raise YamlInvalid(f"models.{model_id}: expected no {', '.join(sorted(of_site))}, which is the whole site's")
        if "of_deadline" in changes.get("latency", {}):
            raise YamlInvalid(
                f"models.{model_id}.latency: expected of_deadline under rules: all calls are counted by it"
            )
        by_model[model_id] = _changed(for_all, changes, where=f"models.{model_id}")
    return AlertRules(rules=for_all, remind_hours=file.remind_hours, least=file.least, by_model=by_model)


SINKS = ("log", "teams", "slack", "webhook", "mail", "fhir")
"""What alerts can be sent to, by the names that `least` knows them by."""


def rules_with_names(rules: Rules) -> Iterator[tuple[str, Rule]]:
    """Give each rule with the name that files, alerts and command lines call it by."""
    for name, field in zip(NAMES, rules.__struct_fields__, strict=True):
        yield name, getattr(rules, field)


def _changed(rules: Rules, changes: Mapping[str, Mapping[str, Any]], *, where: str) -> Rules:
    """Give the rules with single values changed, each checked by the rule's own shape."""
    unknown = sorted(set(changes) - set(NAMES))
    if unknown:
        raise YamlInvalid(f"{where}: expected rules of {', '.join(NAMES)}, got {', '.join(unknown)}")
    changed: dict[str, Rule] = {}
    for name, rule in rules_with_names(rules):
        if name not in changes:
            continue
        keys = type(rule).__struct_fields__
        if wrong := sorted(set(changes[name]) - set(keys)):
            raise YamlInvalid(f"{where}.{name}: unknown key {wrong[0]!r} (expected some of {', '.join(keys)})")
        try:
            changed[name.replace("-", "_")] = msgspec.convert(
                {**msgspec.to_builtins(rule), **changes[name]}, type(rule)
            )
        except msgspec.ValidationError as error:
            raise YamlInvalid(f"{where}.{name}: {error}") from None
    return msgspec.structs.replace(rules, **changed)
