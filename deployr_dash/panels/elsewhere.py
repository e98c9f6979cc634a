"""What a model that answers elsewhere called itself, and since when: the one sign that it was exchanged."""

from __future__ import annotations

from deployr_dash.panels.panel import NamedTable, Panel, View
from deployr_plots.tables import Table
from deployr_plots.words import of

_NAMELESS = "told no name"


def answered_by(view: View) -> Panel:
    """Show every name under which scores came in the window, that which answered last first."""
    name, title = "answered-by", "Answered by"
    scored = view.packets.loc[view.packets["kind"] == "scored"]
    is_elsewhere = view.manifest is not None and view.manifest.model.is_elsewhere
    if not scored["answered_by"].notna().any() and not (is_elsewhere and len(scored)):
        why = "Its scores come from the bundle itself: nothing elsewhere is asked (docs/model-kinds.md)."
        return Panel(name=name, title=title, missing=why)
    names = scored["answered_by"].astype("object").where(scored["answered_by"].notna(), _NAMELESS)
    at = scored["received_at"]
    spans = sorted(
        ((rows.max(), rows.min(), str(called), len(rows)) for called, rows in at.groupby(names)), reverse=True
    )
    _, first, newest, _ = spans[0]
    said = [f"Scored elsewhere, last by {newest}." if newest != _NAMELESS else "Scored elsewhere, last without a name."]
    if len(spans) > 1:
        since = at[(names == newest) & (at >= at[names != newest].max())].min()
        again = " again" if first < since else ""
        said.append(
            f"{of(len(spans), 'name')} in this window: {newest} answers{again} since {since:%Y-%m-%d %H:%M} UTC."
        )
    nameless = any(called == _NAMELESS for _, _, called, _ in spans)
    return Panel(
        name=name,
        title=title,
        said=tuple(said),
        tables=(
            NamedTable(
                caption="By what the model called itself",
                table=Table(
                    columns=("answered by", "first (UTC)", "last (UTC)", "scored packets"),
                    rows=tuple(
                        (called, f"{began:%Y-%m-%d %H:%M}", f"{ended:%Y-%m-%d %H:%M}", packets)
                        for ended, began, called, packets in spans
                    ),
                ),
            ),
        ),
        notes=("A model that tells no name may be exchanged without anybody’s seeing it.",) if nameless else (),
    )
