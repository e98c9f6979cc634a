"""What a report for a committee holds: the dashboard's panels in an order to be read, and words around them.

Pure: `deployr_dash.report_making` reads the extract, `report_html` and `report_pdf` write what is described here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from deployr_core.groups import FEW_PATIENTS, FEWEST_OF_A_CLASS, FEWEST_PATIENTS, FEWEST_ROWS
from deployr_dash.panels.glance import COUNTED, NOTES, Glance, counted, in_short
from deployr_dash.panels.panel import NamedTable, Panel, View, Window
from deployr_dash.panels.tabs import TABS, panels_of
from deployr_dash.plan import MonitoringPlan, plan_panel
from deployr_dash.screens.shown import by_reason
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Figure
from deployr_plots.tables import Cell, Table
from deployr_plots.words import of

Facts = tuple[tuple[str, str], ...]
"""Names with what is said of them, in order."""
Drawings = Mapping[str, str]
"""Figures as SVG on light paper, by their names, which are unique in a report."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels that answer one question."""

    title: str
    asks: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One model. ``anchor``: unique in the report. ``running``: what stands at the head of its pages."""

    anchor: str
    title: str
    running: str
    about: Facts
    sections: tuple[Section, ...]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Something that is explained, point by point."""

    anchor: str
    title: str
    points: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report. ``made_at``: aware UTC, in whole seconds; ``made_by``: who asked for it, or what."""

    title: str
    window: str
    facts: Facts
    made_at: datetime
    made_by: str
    glance: Panel
    chapters: tuple[Chapter, ...]
    passages: tuple[Passage, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Give every figure in its order."""
        panels = [panel for each in self.chapters for section in each.sections for panel in section.panels]
        return tuple(figure for panel in (self.glance, *panels) for figure in panel.figures)

    @property
    def made(self) -> str:
        """Give when it was made and by whom, in words."""
        return f"{self.made_at:%Y-%m-%d %H:%M} UTC by {self.made_by}"


def drawings_of(report: Report, tell: Callable[[int, int], None] = lambda done, total: None) -> Drawings:  # noqa: ARG005
    """Draw every figure once; ``tell`` is called with how many are drawn, and of how many."""
    drawn = {}
    for number, figure in enumerate(report.figures, start=1):
        drawn[figure.name] = figure_svg(figure)
        tell(number, len(report.figures))
    return drawn


def days(window: Window) -> str:
    """Give the days of a window, both included: ``2015-01-01 to 2015-03-31``."""
    return f"{window.start:%Y-%m-%d} to {window.end - timedelta(days=1):%Y-%m-%d}"


def chapter_of(
    view: View,
    number: int,
    *,
    plan: MonitoringPlan | None,
    alerts: Mapping[str, Table] | None,
    tell: Callable[[], None],
) -> Chapter:
    """Give a model's chapter.

    Args:
        view: of the whole window, with features; it may hold no packet.
        number: of the chapter, from 1.
        plan: what the model's owners agreed on.
        alerts: by model, those of the window, worded and ready to be shown; None where nobody looked for any.
        tell: called when a section is done.
    """
    anchor = f"model-{number}"
    sections = []
    for key, tab in TABS.items():
        panels = () if view.packets.empty else panels_of(view, key)
        if panels:
            sections.append(Section(title=tab.title, asks=tab.asks, panels=_in_order(key, panels)))
        tell()
    if not sections:
        sections.append(Section(title="What there is", asks="Is anything known?", panels=(_nothing(),)))
    watched = [] if alerts is None else [_alerts(alerts.get(view.model_id))]
    watched.append(_no_plan(view.model_id) if plan is None else plan_panel(plan))
    sections.append(
        Section(title="Who watches what", asks="What was agreed on, and what has alarmed?", panels=tuple(watched))
    )
    versions = _versions(view)
    return Chapter(
        anchor=anchor,
        title=view.model_id,
        running=f"{view.model_id}, {_named(versions)}",
        about=_about(view, versions),
        sections=tuple(
            replace(section, panels=tuple(_in_chapter(panel, anchor) for panel in section.panels))
            for section in sections
        ),
    )


def glance_of(lines: list[Glance], window: Window, *, alerts: Table | None = None) -> Panel:
    """Give all models of the report, a line each, and alerts of these days that are of no single model."""
    title = "All models at a glance"
    of_app = () if alerts is None else (NamedTable(caption="Alerts that are of no single model", table=alerts),)
    if not lines:
        return Panel(
            name="glance",
            title=title,
            missing=f"There are no packets in these days ({days(window)}). If there should be some, look at the app’s"
            " log, bring the extract up to date with deployr monitor extract, and make the report again.",
            tables=of_app,
        )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (line.model_id, "; ".join(line.watch) or "–", line.versions, *counted(line)) for line in lines
    )
    columns = ("model", "to look at", "versions", *COUNTED)
    return Panel(
        name="glance",
        title=title,
        said=(in_short(lines),),
        tables=(NamedTable(caption=f"{days(window)}, days of UTC", table=Table(columns=columns, rows=rows)), *of_app),
        notes=NOTES,
    )


def passages_of(*, only_ripe: bool, alerts_are_shown: bool) -> tuple[Passage, ...]:
    """Give methods and limits, and the words that are used, as somebody reads them who does neither."""
    labels = (
        "Outcomes count once their time has fully passed (they are “ripe”): outcomes that come early are not like those"
        " that come late."
        if only_ripe
        else "All outcomes count that are known so far, also of packets whose time has not passed: early outcomes are"
        " not like late ones, so the newest days may look better or worse than they are."
    )
    alerts = (
        "Alerts are those that were raised in these days; an alert says that somebody should look, not that harm was"
        " done."
        if alerts_are_shown
        else "Alerts that were raised in these days are not part of this report."
    )
    return (
        Passage(
            anchor="methods",
            title="Methods and limits",
            points=(
                "All figures come from an extract of stored packets: the record of each request to a model, what it"
                " answered, and what happened later. Nothing in the extract or in this report names a patient; patients"
                " are counted by numbers that mean nothing elsewhere.",
                labels,
                "Prospective figures are of predictions that were made before their outcome was known, in service."
                " Retrospective ones are of history that was held out when the model was trained. A drop from the"
                " latter to the former is common, and is why both stand here.",
                "Intervals are 95 %: of 100 such stretches of time, about 95 would have the true figure inside theirs."
                " They resample patients, not packets, because packets of one patient resemble each other. Under"
                f" {FEW_PATIENTS} patients they are too narrow to be trusted, and it is said where that is so.",
                "Performance is measured on packets whose outcome became known. Where outcomes are missing for a reason"
                " the figures do not hold for the rest: “Missing labels” counts who is missing and why.",
                "Where clinicians act on a score, the outcome changes, and a good model may look bad. Only hiding some"
                " advisories by chance allows an honest estimate: “Performance, design-weighted” under Impact is that"
                " one, where a trial does so.",
                f"Groups with fewer than {FEWEST_ROWS} packets, {FEWEST_PATIENTS} patients or {FEWEST_OF_A_CLASS} of"
                " either outcome get no figures: they would be noise, and could tell of a person. Many groups are"
                " compared at once, and the tests are corrected for that.",
                "Drift is held against the time before the window, as long as the window is, beside what chance alone"
                " would give. That something has drifted does not say that the model does worse.",
                "Estimates before labels suppose that a score still means what it meant before. They warn early, and"
                " prove nothing.",
                "A trial’s effect compares everybody as they were assigned, whatever was shown. A trial that is looked"
                " at often finds what is not there: decide on it only at the looks that were planned.",
                "Nothing here says why a figure is what it is. A figure that is off is a reason to look at single"
                " packets, which the dashboard shows to those who may see them.",
                "The report is of one site and of these days. It does not say how a model would do elsewhere.",
                alerts,
                "The numbers that each figure draws are in the report’s HTML file and on the dashboard, as tables.",
            ),
        ),
        Passage(
            anchor="words",
            title="Words in this report",
            points=(
                "Abstained: the model was not asked, or its answer not used, for a stated reason; nothing has failed.",
                "Alert burden: how many alerts a day the threshold makes.",
                "AUROC: of two packets, one with the outcome and one without, how often the former has the higher"
                " score; 0.5 is chance, 0.8 is 8 times in 10, 1 is always.",
                "Calibration: whether of packets with a score of 20 % some 20 % have the outcome.",
                "Censored: the outcome will never be known, for a stated reason; the packet counts as left out.",
                "Packet: the record of one request to a model, with its answer.",
                "PPV (positive predictive value): of those that alerted, the share with the outcome.",
                "Ripe: said of a packet when no later result can change its outcome.",
                "Sensitivity: of those with the outcome, the share that alerted.",
                "Silent mode: scores are computed and stored, and nobody is shown any.",
                "Threshold: the score from which on an advisory is shown.",
            ),
        ),
    )


def _in_order(key: str, panels: tuple[Panel, ...]) -> tuple[Panel, ...]:
    """Give a tab's panels, those that have nothing to show as one list at the end: pages of them hide the rest."""
    rows = tuple((", ".join(each.title for each in some), why) for why, some in by_reason(panels).items())
    if not rows:
        return panels
    table = NamedTable(caption="What is missing, and why", table=Table(columns=("panel", "why"), rows=rows))
    together = Panel(name=f"absent-{key}", title="Nothing to show here yet", tables=(table,))
    return (*(panel for panel in panels if panel.missing is None), together)


def _in_chapter(panel: Panel, anchor: str) -> Panel:
    """Give the panel with names that no other chapter has."""
    figures = tuple(replace(figure, name=f"{anchor}-{figure.name}") for figure in panel.figures)
    return replace(panel, name=f"{anchor}-{panel.name}", figures=figures)


def _versions(view: View) -> tuple[tuple[str, int, str, str], ...]:
    """Give version, packets, first and last day of each, the newest last."""
    by_version = view.packets.groupby(view.packets["version"].astype("object").fillna(""))["received_at"]
    known = by_version.agg(["size", "min", "max"]).sort_values(["max", "min"])
    return tuple(
        (str(version) or "no bundle", int(row["size"]), f"{row['min']:%Y-%m-%d}", f"{row['max']:%Y-%m-%d}")
        for version, row in known.iterrows()
    )


def _named(versions: tuple[tuple[str, int, str, str], ...]) -> str:
    names = [version for version, *_ in versions]
    if not names:
        return "no packets"
    return f"version{'s' if len(names) > 1 else ''} {', '.join(names[-3:])}{' and earlier' if len(names) > 3 else ''}"


def _about(view: View, versions: tuple[tuple[str, int, str, str], ...]) -> Facts:
    task = None if view.manifest is None else view.manifest.task
    said = [] if task is None else [("Predicts", task.label), ("For", task.unit), ("At", task.index_time)]
    said += [
        (f"Version {version}", f"{of(n, 'packet')}, {first if first == last else f'{first} to {last}'}")
        for version, n, first, last in versions
    ]
    for column, title in (("mode", "Mode"), ("environment", "EMR’s environment")):
        names = sorted({str(each) for each in view.packets[column].dropna().unique()})
        said += [(title, ", ".join(names))] if names else []
    return tuple(said)


def _nothing() -> Panel:
    return Panel(
        name="nothing",
        title="No packets in these days",
        missing="The model was not asked for anything in these days, or the extract is not up to date. Choose other"
        " days with --from and --to; if there should be packets, look at the app’s log and at deployr monitor extract.",
    )


def _no_plan(model: str) -> Panel:
    return Panel(
        name="plan",
        title="Monitoring plan",
        missing=f"No monitoring plan for {model} was given. Write who watches what, how often, and what is done when it"
        " is off into a monitoring_plan.yaml, and name its folder with --plans: docs/dashboard.md shows how.",
    )


def _alerts(rows: Table | None) -> Panel:
    name, title = "alerts", "Alerts of these days"
    if rows is None or not rows.rows:
        return Panel(name=name, title=title, said=("No alert was raised in these days.",))
    return Panel(
        name=name,
        title=title,
        said=(f"{of(len(rows.rows), 'alert')} in these days.",),
        tables=(NamedTable(caption="Alerts, as they were raised", table=rows),),
    )
