"""Go or no-go: each item computed from evidence and held against its bar. Pure.

An interval that lies on the good side of its bar as a whole passes, one on the bad side fails, and one that holds the
bar tells neither. What cannot be told does not pass: somebody who approves all the same says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from deployr_core.bundle import Estimate
from deployr_core.governance.bars import Bar
from deployr_core.governance.performance import Performance, Service, in_words
from deployr_core.registry.comparison import Shown
from deployr_core.registry.journal import CheckedItem

SIGNATURE = "signature"
"""The item that the registry itself puts on every approval, under its own name."""


class Verdict(StrEnum):
    """What the evidence says of an item."""

    PASSED = "passed"
    FAILED = "failed"
    UNTOLD = "cannot be told"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """What `deployr parity --json` found: ``compared`` is orders times features."""

    orders: int
    compared: int
    equal: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known when somebody decides; None where nobody looked.

    ``drift``: alarms of drift that have begun and not ended, in words. ``signed_by``: the key; None if none of the
    site's signed it, and then ``unsigned`` says why.
    """

    parity: Parity | None = None
    service: Service | None = None
    drift: tuple[str, ...] | None = None
    signed_by: str | None = None
    unsigned: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One item. ``bar`` and ``figure``: in words, the figure with its interval. ``do``: what to do; empty if passed."""

    item: str
    asked: str
    bar: str
    because: str
    figure: str
    verdict: Verdict
    said: str
    do: str

    def for_journal(self) -> CheckedItem:
        """Give the item as an approval records it: what cannot be told is not passed."""
        return CheckedItem(
            item=self.item,
            passed=self.verdict is Verdict.PASSED,
            said=f"{self.verdict}: {self.figure}; bar: {self.bar}" + (f" ({self.said})" if self.said else ""),
        )


def at_least(figure: Shown, bar: float) -> Verdict:
    """Hold a figure whose larger values are good against its bar; an interval that ends at the bar is within."""
    if isinstance(figure, str):
        return Verdict.UNTOLD
    if figure.low >= bar:
        return Verdict.PASSED
    return Verdict.FAILED if figure.high < bar else Verdict.UNTOLD


def at_most(figure: Shown, bar: float) -> Verdict:
    """Hold a figure whose smaller values are good against its bar."""
    if isinstance(figure, str):
        return Verdict.UNTOLD
    if figure.high <= bar:
        return Verdict.PASSED
    return Verdict.FAILED if figure.low > bar else Verdict.UNTOLD


def within(figure: Shown, low: float, high: float) -> Verdict:
    """Hold a figure that is to lie in a range against both ends, which are included."""
    both = {at_least(figure, low), at_most(figure, high)}
    if Verdict.FAILED in both:
        return Verdict.FAILED
    return Verdict.UNTOLD if Verdict.UNTOLD in both else Verdict.PASSED


def checklist(evidence: Evidence, bars: Mapping[str, Bar]) -> tuple[Checked, ...]:
    """Give every item in the order in which a model comes to them.

    Args:
        evidence: what is known.
        bars: all of `deployr_core.governance.bars.DEFAULTS`, as the site has them.
    """
    service = evidence.service
    return (
        _signature(evidence),
        _parity(evidence.parity, bars),
        *_in_service(service, bars),
        *_performance(_performance_of(service), bars),
        _drift(evidence.drift),
    )


def for_journal(items: Iterable[Checked]) -> tuple[CheckedItem, ...]:
    """Give what an approval records; the signature is on every approval already, under the registry's own name."""
    return tuple(each.for_journal() for each in items if each.item != SIGNATURE)


def in_words_of_all(items: Iterable[Checked]) -> str:
    """Say what it comes to: ``go`` only where every item passed."""
    told = tuple(items)
    failed = [each.item for each in told if each.verdict is Verdict.FAILED]
    untold = [each.item for each in told if each.verdict is Verdict.UNTOLD]
    if not failed and not untold:
        return f"Go: all {len(told)} items passed."
    parts = [f"failed: {', '.join(failed)}"] if failed else []
    parts += [f"cannot be told: {', '.join(untold)}"] if untold else []
    return f"No go: {'; '.join(parts)}."


def _signature(evidence: Evidence) -> Checked:
    is_signed = evidence.signed_by is not None
    return Checked(
        item=SIGNATURE,
        asked="Is the bundle signed by a key that this site trusts?",
        bar="signed",
        because="trust comes from the signer's key",
        figure=f"by {evidence.signed_by}" if is_signed else "not signed",
        verdict=Verdict.PASSED if is_signed else Verdict.FAILED,
        said="" if is_signed else evidence.unsigned,
        do="" if is_signed else "deployr bundle sign, by who holds the key",
    )


def _parity(parity: Parity | None, bars: Mapping[str, Bar]) -> Checked:
    orders, share = bars["parity_orders"], bars["parity_share"]
    verdict, figure, said = Verdict.UNTOLD, "nobody compared", ""
    if parity is not None:
        verdict = Verdict.UNTOLD if parity.orders < orders.bar or not parity.compared else Verdict.PASSED
        if parity.compared and parity.equal < share.bar * parity.compared:
            verdict = Verdict.FAILED
        figure = f"{parity.equal:,} of {parity.compared:,} features equal, of {parity.orders:,} orders"
        # Orders were sampled and features of one order hang together: there is no honest interval for the share.
        said = "a count, without an interval; a parity report does not name the bundle that it was made with"
    return _checked(
        "parity",
        "Do training's source and the EMR give the same features?",
        f"at least {share.bar:.1%} of the features equal, of at least {orders.bar:g} orders",
        share.because,
        figure,
        verdict,
        said,
        do="deployr parity --json parity.json with at least that many orders; follow the causes that it names",
    )


def _in_service(service: Service | None, bars: Mapping[str, Bar]) -> tuple[Checked, ...]:
    nobody = "no request of this bundle in the extract"
    performance = _performance_of(service)
    known = performance if isinstance(performance, Performance) else None
    rows, positives = (None, None) if known is None else (known.rows, known.positives)
    return (
        _counted("days", "Did it run long enough?", None if service is None else service.days, "days", bars),
        _counted(
            "patients",
            "Are enough patients behind the figures?",
            None if known is None else known.patients,
            "patients",
            bars,
        ),
        _counted("positives", "Did enough outcomes happen?", positives, "rows with the outcome", bars),
        _counted(
            "negatives",
            "Were there enough without it?",
            None if rows is None or positives is None else rows - positives,
            "rows without the outcome",
            bars,
        ),
        _share(
            "coverage",
            "Does whoever asks get a score?",
            nobody if service is None else service.answered,
            bars,
            do="look at failed and abstained packets in the dashboard (Integrity), and at what the model requires",
        ),
        _share(
            "labelled",
            "Are the outcomes that are due decided?",
            nobody if service is None else service.labelled,
            bars,
            do="deployr labels run, then deployr monitor extract; look at overdue labels",
        ),
        _latency(nobody if service is None else service.latency_ms, bars["latency_ms"]),
    )


def _performance(performance: Performance | str, bars: Mapping[str, Bar]) -> tuple[Checked, ...]:
    def figure(name: str) -> Shown:
        return performance if isinstance(performance, str) else performance.figures.get(name, "not measured")

    auroc, large, slope = figure("auroc"), figure("calibration_in_the_large"), figure("calibration_slope")
    low, high, off = bars["calibration_slope_low"], bars["calibration_slope_high"], bars["calibration_in_the_large"]
    again = "calibrate and train again (docs/training.md)"
    return (
        _checked(
            "auroc",
            "Does it tell outcomes apart, on this site's own requests?",
            f"the whole interval from {bars['auroc'].bar:g} on",
            bars["auroc"].because,
            in_words(auroc),
            at_least(auroc, bars["auroc"].bar),
            do="wait for more labels where the interval holds the bar; else look at parity, drift and case mix",
        ),
        _checked(
            "calibration_in_the_large",
            "Are scores true on the whole?",
            f"the whole interval within {-off.bar:g} to {off.bar:g}",
            off.because,
            in_words(large),
            within(large, -off.bar, off.bar),
            do=again,
        ),
        _checked(
            "calibration_slope",
            "Are low and high scores as true as those between?",
            f"the whole interval within {low.bar:g} to {high.bar:g}",
            f"{low.because}; {high.because}",
            in_words(slope),
            within(slope, low.bar, high.bar),
            do=again,
        ),
        _gaps(performance, bars["gap"]),
    )


def _gaps(performance: Performance | str, bar: Bar) -> Checked:
    """Look at every group that is large enough; those that are not are named, and nothing is told of them."""
    groups = () if isinstance(performance, str) else performance.groups
    told = [(group.called, group.gap) for group in groups if isinstance(group.gap, Estimate)]
    verdicts = {called: at_least(gap, -bar.bar) for called, gap in told}
    failed = [called for called, verdict in verdicts.items() if verdict is Verdict.FAILED]
    unsure = [called for called, verdict in verdicts.items() if verdict is Verdict.UNTOLD]
    small = [group.called for group in groups if isinstance(group.gap, str)]
    verdict = Verdict.FAILED if failed else Verdict.UNTOLD if unsure or not told else Verdict.PASSED
    if not told:
        figure = performance if isinstance(performance, str) else "no group is large enough"
    else:
        called, worst = min(told, key=lambda each: each[1].low)
        figure = f"{called}: {in_words(worst)}, the lowest of {len(told)} groups"
    said = [f"under the bar: {', '.join(failed)}"] if failed else []
    said += [f"may be under the bar: {', '.join(unsure)}"] if unsure else []
    said += [f"nothing can be told of: {', '.join(small)}"] if small else []
    return _checked(
        "subgroup_gaps",
        "Does it do as well for every group?",
        f"each group's AUROC less everybody's, the whole interval from {-bar.bar:g} on",
        bar.because,
        figure,
        verdict,
        "; ".join(said),
        do="look at that group's calibration and features in the dashboard (Performance); wait where it is small",
    )


def _drift(alarms: tuple[str, ...] | None) -> Checked:
    if alarms is None:
        verdict, figure = Verdict.UNTOLD, "nobody looked"
    else:
        verdict = Verdict.FAILED if alarms else Verdict.PASSED
        figure = "; ".join(alarms) if alarms else "none is open"
    return _checked(
        "drift",
        "Has nothing changed since training?",
        "no alarm of drift open",
        "an open alarm is a question that nobody has answered yet",
        figure,
        verdict,
        do="deployr monitor reference and deployr alerts run; follow docs/drift-alarms.md",
    )


def _counted(item: str, asked: str, count: int | None, of: str, bars: Mapping[str, Bar]) -> Checked:
    """Hold a count against its bar: where it is too low, time may bring more, so it is not held against the model."""
    bar = bars[item]
    enough = count is not None and count >= bar.bar
    return _checked(
        item,
        asked,
        f"at least {bar.bar:g} {of}",
        bar.because,
        "none known" if count is None else f"{count:,} {of}",
        Verdict.PASSED if enough else Verdict.UNTOLD if count is None else Verdict.FAILED,
        do="let the silent trial run on, attach labels, then deployr monitor extract",
    )


def _share(item: str, asked: str, figure: Shown, bars: Mapping[str, Bar], *, do: str) -> Checked:
    bar = bars[item]
    return _checked(
        item,
        asked,
        f"the whole interval from {bar.bar:g} on",
        bar.because,
        in_words(figure),
        at_least(figure, bar.bar),
        do=do,
    )


def _latency(figure: Shown, bar: Bar) -> Checked:
    return _checked(
        "latency_ms",
        "Do answers come in time? (95th percentile)",
        f"the whole interval up to {bar.bar:g} ms",
        bar.because,
        in_words(figure, digits=0),
        at_most(figure, bar.bar),
        do="look at latency by search in the dashboard (Integrity)",
    )


def _checked(
    item: str, asked: str, bar: str, because: str, figure: str, verdict: Verdict, said: str = "", *, do: str
) -> Checked:
    is_passed = verdict is Verdict.PASSED
    return Checked(
        item=item,
        asked=asked,
        bar=bar,
        because=because,
        figure=figure,
        verdict=verdict,
        said=said,
        do="" if is_passed else do,
    )


def _performance_of(service: Service | None) -> Performance | str:
    return "no request of this bundle in the extract" if service is None else service.performance
