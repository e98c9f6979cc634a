"""One training run: what went in, what came out, who vouches for it, and whether the evidence says go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployr_core.bundle import Estimate, Manifest
from deployr_core.governance.card import Card
from deployr_core.governance.checklist import Checked, Verdict, in_words_of_all
from deployr_core.governance.facts import how_to_know
from deployr_core.governance.performance import NAMES
from deployr_core.registry.run import DataSet, Run
from deployr_dash.panels.panel import NamedTable, Panel
from deployr_plots.common import Estimate as Drawn
from deployr_plots.common import Row, estimates_figure
from deployr_plots.figures import Axis
from deployr_plots.tables import Table
from deployr_plots.words import number, of

DIGITS = 12
"""Of a digest, how much is shown where somebody only compares; `deployr models show` and the JSON have all of it."""
_WIDTH = 520
_SIGNS = {Verdict.PASSED: "✓", Verdict.FAILED: "✕", Verdict.UNTOLD: "?"}
"""Before the words, so that what did not pass is found at a glance."""


def what_went_in(run: Run, manifest: Manifest, run_sha256: str) -> Panel:
    """Show the rows, the config and the code that a run was made from, each by its digest."""
    sets = {"training": run.sets.train, "validation": run.sets.validation, "test": run.sets.test}
    opened = f"Opened {run.opened_at:%Y-%m-%d %H:%M} UTC, {run.opened_because}"
    opened += f" (entry {run.opened_for})" if run.opened_for else ""
    kept = "are kept with who trained it" if run.has_snapshot else "were not kept: it cannot be compared on them"
    rows = tuple((name, *_set(each)) for name, each in sets.items() if each is not None)
    first, *code = run.code_version.package, run.code_version.sources_sha256
    return Panel(
        name="run-inputs",
        title="What it was trained from",
        said=(
            f"{of(run.sets.train.rows, 'row')} of {of(run.sets.train.patients, 'patient')} from {run.source}, by"
            f" {run.trained_by}.",
            f"{opened}; for the {run.deploy_type}. Rows and features {kept}.",
        ),
        tables=(
            NamedTable(
                caption="Rows, by set",
                table=Table(
                    columns=(
                        "set",
                        "rows",
                        "patients",
                        "positive",
                        "first day",
                        "last day",
                        "rows’ digest",
                        "features’",
                    ),
                    rows=rows,
                ),
            ),
            NamedTable(
                caption="Everything by its digest (SHA-256)",
                table=Table(
                    columns=("what", "digest, or version"),
                    rows=(
                        ("run.json", run_sha256),
                        ("config", run.config_sha256),
                        ("bundle", run.bundle_sha256),
                        (f"code, deployr {first}", *code),
                        ("declaration of features", manifest.spec_sha256),
                        *((f"library {name}", version) for name, version in _libraries(manifest)),
                    ),
                ),
            ),
        ),
        notes=()
        if run.sets.validation is not None
        else ("No validation set: nothing was chosen or corrected on rows of its own.",),
    )


def held_out(run: Run, manifest: Manifest) -> Panel:
    """Show the figures of the held-out rows with their intervals; those between 0 and 1 are drawn."""
    name, title = "run-figures", "On held-out rows"
    if not run.test:
        return Panel(name=name, title=title, missing="The run’s record holds no figure of held-out rows.")
    drawn = [(called, each) for called, each in _called(run.test) if each.low >= 0.0 and each.high <= 1.0]
    test = run.sets.test
    main, *_ = _called(run.test)
    return Panel(
        name=name,
        title=title,
        said=(
            f"{main[0]} {_written(main[1])}, on {of(test.rows, 'row')} of {of(test.patients, 'patient')} whom the model"
            " has never seen.",
        ),
        figures=(
            estimates_figure(
                [
                    Row(name=called, shown=Drawn(value=each.value, low=each.low, high=each.high))
                    for called, each in drawn
                ],
                title="Held-out figures with 95 % intervals",
                told="; ".join(f"{called}: {_written(each)}" for called, each in drawn) + ".",
                name="run-figures",
                measure="estimate",
                axis=Axis(name="Value, with its 95 % interval", low=0.0, high=1.0),
                rows_are="Figure",
                width=_WIDTH,
            ),
        )
        if drawn
        else (),
        tables=(
            NamedTable(
                caption="Held-out figures",
                table=Table(
                    columns=("figure", "with its 95 % interval"),
                    rows=tuple((called, _written(each)) for called, each in _called(run.test)),
                ),
            ),
        ),
        notes=(f"The outcome: {manifest.task.label}.",),
    )


def signature(bundle: tuple[str | None, str], record: tuple[str | None, str]) -> Panel:
    """Say who signed the bundle and the run's record, each as the key's id, or None and why not."""
    name, title = "run-signature", "Signatures"
    both = {"The bundle": bundle, "The run’s record": record}
    signed = [f"{called} is signed by the site’s key {key}." for called, (key, _) in both.items() if key]
    lacking = [
        f"{called} is not signed by anybody whom this site trusts: {why}."
        for called, (key, why) in both.items()
        if not key
    ]
    if not signed:
        return Panel(name=name, title=title, missing=" ".join(lacking))
    return Panel(name=name, title=title, said=(*lacking, *signed))


def go_or_no_go(items: Sequence[Checked]) -> Panel:
    """Show the checklist: each item with its verdict, its figure, its bar, and what to do."""
    return Panel(
        name="run-checklist",
        title="Go or no-go",
        said=(in_words_of_all(items),),
        tables=(
            NamedTable(
                caption="The checklist, computed now from the site’s own evidence",
                table=Table(
                    columns=("item", "what is asked", "verdict", "what was found", "bar", "what to do"),
                    rows=tuple(
                        (
                            f"`{each.item}`",
                            each.asked,
                            f"{_SIGNS[each.verdict]} {each.verdict}",
                            each.figure + (f"; {each.said}" if each.said else ""),
                            each.bar,
                            each.do,
                        )
                        for each in items
                    ),
                ),
            ),
        ),
        notes=("What cannot be told does not pass: an interval passes as a whole (docs/governance.md).",),
    )


def papers(card: Card) -> Panel:
    """Say how complete each paper is, and what is missing."""
    return Panel(
        name="run-papers",
        title="Papers",
        said=tuple(f"{each.profile.title}: {each.in_short}." for each in card.papers),
        tables=(
            NamedTable(
                caption="What is missing, and who can say it",
                table=Table(
                    columns=("fact", "how it comes to be known"),
                    rows=tuple((name.replace("_", " "), how_to_know(name)) for name in card.missing),
                ),
            ),
        )
        if card.missing
        else (),
    )


def _set(rows: DataSet) -> tuple[str | float | None, ...]:
    return (
        rows.rows,
        rows.patients,
        rows.positives,
        f"{rows.first}",
        f"{rows.last}",
        rows.rows_sha256[:DIGITS],
        rows.features_sha256[:DIGITS],
    )


def _libraries(manifest: Manifest) -> list[tuple[str, str]]:
    return sorted(manifest.training.library_versions.items())


def _called(figures: Mapping[str, Estimate]) -> list[tuple[str, Estimate]]:
    order = [*NAMES, *(name for name in figures if name not in NAMES)]
    return [(NAMES.get(name, name.replace("_", " ")), figures[name]) for name in order if name in figures]


def _written(figure: Estimate) -> str:
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"
