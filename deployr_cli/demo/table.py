"""The table at the end of the demo."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from deployr_cli.demo.figures import DemoFigures
from deployr_cli.workspaces import as_typed
from deployr_core.bundle import Bundle, Estimate
from deployr_dev.parity import ParityReport

_MOST_DIFFERENCES = 5


def show(
    figures: DemoFigures,
    parity: ParityReport,
    *,
    bundle: Bundle,
    before: datetime,
    until: datetime,
    workspace: Path,
    dashboard: str | None,
    console: Console,
) -> None:
    """Print what happened, what it says about the model, and where to look next.

    ``dashboard``: the command that shows it in a browser; None where none is installed.
    """
    manifest = bundle.manifest
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim")
    table.add_row("Inferences", f"{figures.inferences:,}", f"one per order signed {before:%d %b} to {until:%d %b %Y}")
    table.add_row("Failures", f"{figures.failed:,}", f"{figures.unfinished:,} left unfinished")
    table.add_row("Scores written", f"{figures.score_rows:,}", "rows in the EMR's score column")
    table.add_row(
        "Labels observed", f"{figures.labels_observed:,}", f"{figures.labels_censored:,} without a usable result"
    )
    table.add_row()
    evaluation, prospective = manifest.evaluation, figures.auroc_prospective
    table.add_row("AUROC retrospective", *_estimate(figures.auroc_retrospective))
    table.add_row("", "", f"warehouse, {evaluation.rows:,} orders of {evaluation.patients:,} patients held out")
    table.add_row("AUROC prospective", *(_estimate(prospective) if prospective else ("-", "not measurable")))
    table.add_row("", "", "over FHIR, labels observed later")
    table.add_row()
    table.add_row("Latency", f"{figures.latency_ms.p50:.0f} ms", f"median; 95 % under {figures.latency_ms.p95:.0f} ms")
    share = 100 * figures.parity.features_equal / max(figures.parity.features_compared, 1)
    compared = f"{figures.parity.features_compared:,} features"
    table.add_row("Parity", f"{share:.5g} %", f"equal in EMR and warehouse, of {compared}")
    again = figures.rerun
    table.add_row(
        "The same again adds",
        f"{again.new_packets + again.new_labels + again.new_writes:,}",
        f"{again.new_packets} packets, {again.new_labels} labels, {again.new_writes} EMR writes",
    )
    console.print()
    console.print(
        Panel(table, title=f"deployr demo: {manifest.model_id} {manifest.version}", title_align="left", expand=False)
    )
    for difference in parity.differences[:_MOST_DIFFERENCES]:
        console.print(
            f"  differs in {difference.orders} orders: {difference.feature} "
            f"(EMR {difference.example_emr:g}, warehouse {difference.example_warehouse:g})"
        )
    for complaint in figures.complaints:
        console.print(f"[bold red]✗[/bold red] {complaint}")
    place = as_typed(workspace)
    console.print("Intervals are 95 %, from 1,000 resamples of patients. Where to look next:", highlight=False)
    for where, what in (
        *(() if dashboard is None else ((dashboard, "in a browser"),)),
        (f"{place}/bundles/{manifest.model_id}", "the bundle: manifest, features, model"),
        (f"{place}/packets.sqlite", "every packet, delivery and label"),
        (f"{place}/host.log", "what the function host did"),
        ("docs/architecture.md", "how it fits together"),
        ("deployr --help", "what else there is"),
    ):
        console.print(f"  {where}  [dim]{what}[/dim]", highlight=False, soft_wrap=True)


def _estimate(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.value:.3f}", f"95 % interval {estimate.low:.3f} to {estimate.high:.3f}"
