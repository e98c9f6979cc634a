"""The trial's tables on the terminal, the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from deployr_cli.trial.cohorts import CohortFigures
from deployr_cli.trial.figures import TrialFigures
from deployr_cli.trial.models import GROUPS
from deployr_cli.trial.paper import CITATION, TABLE_1, TABLE_2, Auroc
from deployr_cli.trial.replay import Replayed
from deployr_cli.trial.usage import Growth
from deployr_dev.evaluation.records import Evaluation, Measured

SIDES = ("retrospective", "prospective")
UNSEEN = ""
"""What is not known of the paper, or cannot be measured of ours, stays blank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """All that a trial found.

    ``cohorts``: by group, the retrospective one and the prospective. ``evaluations``: by task, the same.
    """

    figures: TrialFigures
    cohorts: Mapping[str, tuple[CohortFigures, CohortFigures]]
    evaluations: Mapping[str, tuple[Evaluation | None, Evaluation | None]] = field(repr=False)
    replayed: Replayed = field(repr=False)
    steps_s: Mapping[str, float]


def show(found: Found, *, console: Console) -> None:
    """Print the tables, what they rest on, and how long it took."""
    for table in (cohort_table(found), performance_table(found), availability_table(found), effort_table(found)):
        console.print()
        console.print(table)
    figures = found.figures
    console.print()
    if said := fall(figures):
        console.print(said, highlight=False)
    console.print(
        f"{figures.orders:,} orders, {figures.packets:,} packets: {figures.unfinished:,} unfinished, "
        f"{figures.failed:,} failed, {figures.lost:,} lost. {figures.seconds:,.0f} s in all, "
        f"{figures.orders_per_second:.1f} orders a second from the first order to the last label.",
        highlight=False,
    )
    without = ", ".join(f"{count:,} {reason}" for reason, count in sorted(figures.censored.items()))
    console.print(f"Packets that have no label: {without or 'none'}.", highlight=False)
    for (way, answer), count in sorted(found.replayed.answers.items()):
        console.print(f"  {way.value:<10} {answer:<12} {count:>7,} orders", highlight=False)


def cohort_table(found: Found) -> Table:
    """Lay out table 1: whom the orders were of."""
    table = _table("Table 1: cohorts", "Ordered", "Cohort")
    for heading in ("Paper", "Patients", "Orders", "Age", "Female", "White", "Black", "Asian"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group in GROUPS:
        paper = TABLE_1[group.name]
        for name, patients, cohort in zip(
            SIDES, (paper.retrospective, paper.prospective), found.cohorts[group.name], strict=True
        ):
            shares = (cohort.female, cohort.white, cohort.black, cohort.asian)
            table.add_row(
                group.name if name == SIDES[0] else "",
                name,
                f"{patients:,}",
                f"{cohort.patients:,}",
                f"{cohort.orders:,}",
                UNSEEN if cohort.mean_age is None else f"{cohort.mean_age:.0f}",
                *(UNSEEN if share is None else f"{share:.0%}" for share in shares),
            )
    table.caption = (
        "All orders before the trial, and those of the trial; age at a patient's first.\n"
        f"Paper: patients of {CITATION}. Its ages, sexes and races were not seen."
    )
    return table


def performance_table(found: Found) -> Table:
    """Lay out table 2: how often each result was abnormal, and how well each model told."""
    table = _table("Table 2: performance", "Task", "Rows")
    for heading in ("Labelled", "Abnormal", "Paper AUROC", "AUROC [95 %]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, measured in found.figures.tasks.items():
        paper = TABLE_2[task]
        for name, ours, theirs in zip(
            SIDES,
            (measured.retrospective, measured.prospective),
            (paper.retrospective, paper.prospective),
            strict=True,
        ):
            table.add_row(
                task if name == SIDES[0] else "",
                name,
                f"{ours.n:,}",
                percent(ours.prevalence),
                published(theirs),
                interval(ours.auroc, ours.low, ours.high),
            )
    table.caption = (
        "Intervals of 95 % from 1,000 resamples of patients. Retrospective: held out of the past.\n"
        f"Paper: {CITATION}. How often its results were abnormal was not seen."
    )
    return table


def availability_table(found: Found) -> Table:
    """Lay out the prospective AUROC by fifths of the rows, from those with the fewest features available."""
    table = _table("Prospective AUROC by number of available features", "Task")
    for heading in ("fewest", "2nd fifth", "3rd fifth", "4th fifth", "most"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, (_, prospective) in found.evaluations.items():
        fifths = () if prospective is None else prospective.by_available_features
        cells = [f"{fifth.auroc.value:.2f}" if isinstance(fifth.auroc, Measured) else UNSEEN for fifth in fifths]
        table.add_row(task, *cells, *([UNSEEN] * (5 - len(cells))))
    table.caption = "Fifths of the rows; the page says how many features that is. Blank: too few rows or patients."
    return table


def effort_table(found: Found) -> Table:
    """Lay out where processor time went while orders were asked about and labelled, and how memory grew."""
    table = _table("Processor time and memory from the first order to the last label", "Part")
    for heading in ("Seconds", "Share", "MB early", "MB late"):
        table.add_column(heading, justify="right", no_wrap=True)
    parts: list[tuple[str, float, Growth | None]] = []
    for name, used in found.figures.processor_s.items():
        held = found.figures.memory_mb.get(name)
        if name.startswith("host"):
            parts.append((f"bridge: {name}", used.first_thread_s, held))
            parts.append((f"store and other threads of {name}", used.others_s, None))
        else:
            parts.append((name, used.first_thread_s + used.others_s, held))
    whole = sum(seconds for _, seconds, _ in parts)
    for name, seconds, held in parts:
        memory = (UNSEEN, UNSEEN) if held is None else (f"{held.first_mb:,.0f}", f"{held.last_mb:,.0f}")
        table.add_row(name, f"{seconds:,.1f}", f"{seconds / whole:.0%}" if whole else UNSEEN, *memory)
    steps = ", ".join(f"{step} {seconds:,.0f} s" for step, seconds in found.steps_s.items())
    table.caption = f"By the clock: {steps}. Early and late: medians of the first and the last quarter."
    return table


def fall(figures: TrialFigures) -> str:
    """Say by how much the AUROCs fell from before the trial to it, in the mean over the tasks; blank if unmeasured."""
    pairs = [
        (task, each.retrospective.auroc, each.prospective.auroc)
        for task, each in figures.tasks.items()
        if each.retrospective.auroc is not None and each.prospective.auroc is not None
    ]
    if not pairs:
        return UNSEEN
    before, after, theirs_before, theirs_after = (
        sum(values) / len(pairs)
        for values in (
            [before for _, before, _ in pairs],
            [after for _, _, after in pairs],
            [TABLE_2[task].retrospective.value for task, _, _ in pairs],
            [TABLE_2[task].prospective.value for task, _, _ in pairs],
        )
    )
    lower = sum(after < before for _, before, after in pairs)
    return (
        f"The AUROC fell for {lower} of {len(pairs)} models, in the mean from {before:.3f} to {after:.3f}; "
        f"the paper's from {theirs_before:.3f} to {theirs_after:.3f}."
    )


def percent(share: float | None) -> str:
    """Write a share; blank where there is none."""
    return UNSEEN if share is None else f"{share:.1%}"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """Write an AUROC with its interval, as the paper does; blank where there is none."""
    return UNSEEN if value is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def published(auroc: Auroc) -> str:
    """Write what the paper has."""
    return interval(auroc.value, auroc.low, auroc.high)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table
