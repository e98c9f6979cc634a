"""What `deployr parity` prints."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from deployr_core.bundle import Manifest
from deployr_dev.parity import ParityReport, ScoreParity
from deployr_dev.parity_kinds import CauseKind

_MOST_DIFFERENCES = 15
_MOST_ONE_SIDED = 10


def show_parity(report: ParityReport, *, manifest: Manifest, console: Console) -> None:
    """Print how far the two sides agree, what the differences cost, and what most likely made them."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header, justify in (("feature group", "left"), ("compared", "right"), ("equal", "right"), ("", "right")):
        table.add_column(header, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, group in report.groups.items():
        table.add_row(name, f"{group.compared:,}", f"{group.equal:,}", _share(group.equal, group.compared))
    table.add_row()
    table.add_row(
        "all",
        f"{report.features_compared:,}",
        f"{report.features_equal:,}",
        _share(report.features_equal, report.features_compared),
        style="bold",
    )
    console.print()
    title = f"parity: {manifest.model_id} {manifest.version}, {report.orders:,} orders"
    console.print(Panel(table, title=title, title_align="left", expand=False))
    if report.score is not None:
        _show_score(report.score, orders=report.orders, console=console)
    _show_differences(report, console)
    _show_causes(report, console)


def _show_score(score: ScoreParity, *, orders: int, console: Console) -> None:
    quantiles = score.absolute_quantiles
    console.print(
        f"Score: equal in {score.orders_equal:,} of {orders:,} orders; off by {quantiles['p50']:.3g} in the median, "
        f"{quantiles['p90']:.3g} at the 90th percentile, {quantiles['max']:.3g} at most; "
        f"{score.decisions_flipped:,} decisions flipped at {score.threshold:.3g}",
        highlight=False,
    )
    if score.auroc_emr is None or score.auroc_warehouse is None or score.auroc_lost is None:
        console.print(f"AUROC: not measurable on {score.labelled:,} orders with a label", highlight=False)
        return
    change = "gained" if score.auroc_lost < 0 else "lost"
    console.print(
        f"AUROC: {score.auroc_warehouse:.3f} with the warehouse's features, {score.auroc_emr:.3f} with the EMR's, "
        f"{abs(score.auroc_lost):.3f} {change}, on {score.labelled:,} orders with a label",
        highlight=False,
    )


def _show_differences(report: ParityReport, console: Console) -> None:
    if not report.differences:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("feature that differs", overflow="fold")
    for header in ("orders", "EMR larger", "largest", "EMR", "warehouse"):
        table.add_column(header, justify="right", no_wrap=True)
    for difference in report.differences[:_MOST_DIFFERENCES]:
        table.add_row(
            escape(difference.feature),
            f"{difference.orders:,}",
            f"{difference.emr_larger:,}",
            f"{difference.largest_difference:g}",
            f"{difference.example_emr:g}",
            f"{difference.example_warehouse:g}",
        )
    console.print()
    console.print(table)
    _show_rest(len(report.differences), _MOST_DIFFERENCES, "features", console)


def _show_causes(report: ParityReport, console: Console) -> None:
    if report.differences:
        console.print()
    groups_of: dict[tuple[str, str], list[str]] = {}
    for cause in report.causes:
        groups_of.setdefault((cause.kind, cause.explanation), []).append(cause.group)
    for (kind, explanation), groups in groups_of.items():
        console.print(f"[bold red]{kind}[/bold red] in {', '.join(groups)}: {escape(explanation)}", highlight=False)
    if report.differences and not report.causes:
        console.print("No known cause fits these differences: compare the facts of one such order by hand.")
    if report.mapping_patch:
        console.print("To try in the source mapping:")
        console.print_json(data=report.mapping_patch)
    if report.differences:
        missing = {cause.group for cause in report.causes if cause.kind is CauseKind.MISSING_GROUP}
        one_sided = [found for found in report.one_sided if found.group not in missing]
        for found in one_sided[:_MOST_ONE_SIDED]:
            side = "EMR" if found.side == "emr" else "warehouse"
            console.print(
                f"  only in the {side}: {found.what} {escape(found.name)} of {found.group}, {found.facts:,} facts",
                highlight=False,
            )
        _show_rest(len(one_sided), _MOST_ONE_SIDED, "codes and units", console)


def _show_rest(there: int, shown: int, what: str, console: Console) -> None:
    if there > shown:
        console.print(f"  … and {there - shown:,} more {what}, all of them in the JSON report", highlight=False)


def _share(equal: int, compared: int) -> str:
    # Rounded down: 100 % must mean all of them.
    return "-" if not compared else f"{int(1e5 * equal / compared) / 1e3:.5g} %"
