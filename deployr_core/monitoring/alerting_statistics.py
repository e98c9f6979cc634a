"""What the nightly rules find in figures of an extract: performance, calibration, drift, coverage, labels, the trial.

Nothing is measured here: figures come with their intervals from where panels take them, so that an alert and the panel
that it links to say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deployr_core.bootstrap import Figure, Interval, NotMeasured
from deployr_core.monitoring.alert_rules import (
    Auroc,
    Burden,
    Calibration,
    Coverage,
    DriftRule,
    LabelsOverdue,
    Overrides,
    Rules,
    SampleRatioRule,
)
from deployr_core.monitoring.alerting import FEW, Finding, Verdict, counted, share_of
from deployr_core.monitoring.designs import SampleRatio
from deployr_core.monitoring.drift import Drift
from deployr_core.monitoring.drift_alarm import DriftAlarm

NAMES = ("coverage", "labels-overdue", "auroc", "calibration", "drift", "sample-ratio", "overrides", "burden")

_Told = tuple[Verdict, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """Of ``ripe`` scored packets, how many have had no label for longer than the rule says."""

    overdue: int
    ripe: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of one model in the window that is looked at.

    ``auroc``, ``calibration``, ``positives`` and ``negatives``: of ripe labels of the version that answered last;
    calibration is mean score less observed share. ``stated``: AUROC of held-out rows, by the bundle. ``coverage``:
    against the time before; ``drift``: against the reference period; a text says why there is none. ``sample_ratio``:
    None without a trial. ``overridden``: share of ``shown`` advisories. ``burden`` and ``burden_before``: advisories a
    day; None where none is shown.
    """

    model: str
    scored: int
    positives: int
    negatives: int
    auroc: Figure
    stated: Interval | None
    calibration: Figure
    overdue: Overdue
    coverage: Sequence[Drift] | str
    drift: DriftAlarm | str
    sample_ratio: SampleRatio | None
    shown: int
    overridden: Figure
    burden: Figure
    burden_before: float | None


def of_figures(figures: Figures, rules: Rules) -> Iterator[Finding]:
    """Give what each nightly rule finds; coverage one for each group of features."""

    def finding(rule: str, told: _Told, part: str = "") -> Finding:
        return Finding(rule=rule, model=figures.model, part=part, verdict=told[0], said=told[1])

    for part, told in _coverage(figures, rules.coverage).items():
        yield finding("coverage", told, part)
    yield finding("labels-overdue", _labels(figures.overdue, rules.labels_overdue))
    yield finding("auroc", _auroc(figures, rules.auroc))
    yield finding("calibration", _calibration(figures, rules.calibration))
    yield finding("drift", _drift(figures.drift, rules.drift))
    if figures.sample_ratio is not None:
        yield finding("sample-ratio", _sample_ratio(figures.sample_ratio, rules.sample_ratio))
    yield finding("overrides", _overrides(figures, rules.overrides))
    yield finding("burden", _burden(figures, rules.burden))


def _coverage(figures: Figures, rule: Coverage) -> Mapping[str, _Told]:
    if isinstance(figures.coverage, str):
        return {"": (Verdict.UNKNOWN, figures.coverage)}
    if figures.scored < rule.least_packets:
        return {"": (Verdict.UNKNOWN, f"Fewer than {rule.least_packets} scored packets.")}
    found = {}
    for each in figures.coverage:
        fall = each.share_before - each.share_now
        said = f"{_share(each.share_now)} of packets have any; in the reference period {_share(each.share_before)}."
        fires = each.is_found and fall >= rule.least_rise
        found[each.name] = (Verdict.FIRING if fires else _below(fall, rule.least_rise), said)
    return found


def _labels(overdue: Overdue, rule: LabelsOverdue) -> _Told:
    if overdue.ripe < rule.least_packets:
        return Verdict.UNKNOWN, f"Fewer than {rule.least_packets} packets are old enough to have a label."
    said = f"{share_of(overdue.overdue, overdue.ripe)} could have a label for {rule.days:g} days and have none."
    share = overdue.overdue / overdue.ripe
    return (Verdict.FIRING if share >= rule.least_share and overdue.overdue else _below(share, rule.least_share)), said


def _auroc(figures: Figures, rule: Auroc) -> _Told:
    if (few := _too_few(figures, rule.least_of_class)) is not None:
        return few
    if isinstance(figures.auroc, NotMeasured):
        return Verdict.UNKNOWN, f"Not measurable: {figures.auroc.why}."
    now = figures.auroc
    if rule.bar is not None:
        said = f"AUROC {_interval(now)}; the bar is {rule.bar:g}."
        return _against(now.high < rule.bar, now.value >= rule.bar), said
    if figures.stated is None:
        return Verdict.UNKNOWN, f"AUROC {_interval(now)}; the bundle says nothing to hold it against: declare a bar."
    stated = figures.stated
    said = f"AUROC {_interval(now)}; on held-out rows {_interval(stated)}."
    return _against(now.high < stated.low, now.value >= stated.low), said


def _calibration(figures: Figures, rule: Calibration) -> _Told:
    if (few := _too_few(figures, rule.least_of_class)) is not None:
        return few
    if isinstance(figures.calibration, NotMeasured):
        return Verdict.UNKNOWN, f"Not measurable: {figures.calibration.why}."
    now = figures.calibration
    said = f"Mean score less share of outcomes: {_interval(now)}; up to {rule.least_shift:g} is let pass."
    beyond = now.low > rule.least_shift or now.high < -rule.least_shift
    return _against(beyond, abs(now.value) <= rule.least_shift), said


def _drift(alarm: DriftAlarm | str, rule: DriftRule) -> _Told:
    if isinstance(alarm, str):
        return Verdict.UNKNOWN, alarm
    if not alarm.raised:
        return Verdict.CLEAR, alarm.why
    shift = alarm.score_shift
    moved = "" if shift is None else f" The mean score moved by {shift:+.3f}."
    is_enough = rule.least_shift == 0.0 or (shift is not None and abs(shift) >= rule.least_shift)
    return (Verdict.FIRING if is_enough else Verdict.BETWEEN), f"{alarm.why}{moved}"


def _sample_ratio(ratio: SampleRatio, rule: SampleRatioRule) -> _Told:
    units = sum(ratio.counts.values())
    if units < max(rule.least_units, FEW):
        return Verdict.UNKNOWN, f"Fewer than {rule.least_units} units."
    arms = ", ".join(f"{arm} {counted(n)} (expected {ratio.expected[arm]:,.0f})" for arm, n in ratio.counts.items())
    said = f"Units by arm: {arms}; chance makes this {ratio.p_value:.2g} of the time."
    return _against(ratio.p_value < rule.chance, ratio.p_value > 10 * rule.chance), said


def _overrides(figures: Figures, rule: Overrides) -> _Told:
    if figures.shown < rule.least_packets:
        return Verdict.UNKNOWN, f"Fewer than {rule.least_packets} advisories were shown."
    if isinstance(figures.overridden, NotMeasured):
        return Verdict.UNKNOWN, f"Not measurable: {figures.overridden.why}."
    now = figures.overridden
    said = f"{_share(now.value)} ({_share(now.low)} to {_share(now.high)}) of advisories shown are overridden."
    return _against(now.low > rule.bar, now.value <= rule.bar), said


def _burden(figures: Figures, rule: Burden) -> _Told:
    if isinstance(figures.burden, NotMeasured):
        return Verdict.UNKNOWN, f"Not measurable: {figures.burden.why}."
    now = figures.burden
    if rule.per_day is not None:
        limit, what = rule.per_day, "declared are at most"
    elif figures.burden_before is not None and figures.burden_before > 0:
        limit, what = rule.times * figures.burden_before, f"{rule.times:g} times the reference period's is"
    else:
        return Verdict.UNKNOWN, "No advisory was shown in the reference period: declare per_day."
    said = f"{now.value:.1f} advisories a day ({now.low:.1f} to {now.high:.1f}); {what} {limit:.1f}."
    return _against(now.low > limit, now.value <= limit), said


def _too_few(figures: Figures, least: int) -> _Told | None:
    if min(figures.positives, figures.negatives) >= least:
        return None
    return Verdict.UNKNOWN, f"Fewer than {least} labels of each class that are ripe."


def _against(fires: bool, is_clear: bool) -> Verdict:
    return Verdict.FIRING if fires else Verdict.CLEAR if is_clear else Verdict.BETWEEN


def _below(value: float, limit: float) -> Verdict:
    """Give what is not firing: clear up to half of the limit, so that with a limit of 0 nothing at all is clear."""
    return Verdict.CLEAR if value <= limit / 2 else Verdict.BETWEEN


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
