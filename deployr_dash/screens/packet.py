"""One packet, by its id."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from deployr_dash.away import StoreAway
from deployr_dash.loading import load_features, load_frame
from deployr_dash.panels.one_packet import calls, contributions, features, timeline
from deployr_dash.panels.panel import Panel
from deployr_dash.parts import Index
from deployr_dash.screens.frame import head, show
from deployr_dash.screens.shown import help_html
from deployr_dash.sources import Sources


def page(sources: Sources, _: Index, name: str) -> None:
    """Show what the extract holds of a packet, and what the store does, where it may be read."""
    head("One packet", aside="by its id", name=name, environment=sources.environment)
    asked = st.text_input("Packet’s id", value=st.query_params.get("id", ""), help="Answers carry it as X-Packet-Id.")
    packet_id = asked.strip()
    if not packet_id:
        st.html(help_html("Which packet?", ("Type its id, or open one from a model’s System integrity tab.",)))
        return
    st.query_params.from_dict({"id": packet_id})
    places = load_frame(sources.extract, columns=("packet_id", "model_id", "received_at"))
    places = places.loc[(places["packet_id"] == packet_id).to_numpy(dtype=bool)]
    if places.empty:
        st.html(
            help_html(
                "No such packet in the extract",
                ("Its id may be mistyped, it may be newer than the extract, or it was forgotten on demand.",),
                "deployr monitor extract",
            )
        )
        return
    place = places.iloc[0]
    at = place["received_at"].to_pydatetime()
    frame = load_frame(sources.extract, model=str(place["model_id"]), since=at)
    row = frame.loc[(frame["packet_id"] == packet_id).to_numpy(dtype=bool)].iloc[0]
    panels = [timeline(row)]
    found = load_features(sources.extract, model=str(row["model_id"]), version=str(row["version"]), since=at)
    replayed = bool(row["kind"] == "scored" and pd.isna(row["latency_ms"]))
    panels += [*_of_store(sources, packet_id, replayed=replayed), features(found, row)]
    show(panels)
    st.html(
        help_html(
            "Score it again",
            ("A stored packet can be scored again to the same bits, or it is said what changed:",),
            f"deployr replay {packet_id}" if packet_id.isalnum() else "deployr replay",
        )
    )


def _of_store(sources: Sources, packet_id: str, *, replayed: bool) -> list[Panel]:
    title = "Contributions and calls"
    if sources.packet is None:
        why = "They are in the store, not in the extract. Start the dashboard with --settings to have them here."
        return [Panel(name="store", title=title, missing=why)]
    try:
        packet = sources.packet(packet_id)
    except StoreAway as error:
        return [
            Panel(name="store", title=title, missing=f"The store does not answer: {error} The rest is of the extract.")
        ]
    if packet is None:
        return [
            Panel(name="store", title=title, missing="The store has it no more: it was kept as long as it had to be.")
        ]
    return [contributions(packet), calls(packet, replayed=replayed)]
