"""What pages read of the extract, kept in memory until there is a newer one; nothing here changes a frame."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from deployr_core.bundle import Manifest
from deployr_dash.loading import load_frame
from deployr_dash.overview import overview
from deployr_dash.parts import Index, read_index
from deployr_dash.readings import Overview
from deployr_dash.views import COLUMNS, manifests_of


def state(folder: Path) -> Index:
    """Give what the extract holds now.

    Raises:
        ExtractMissing: there is none.
    """
    return read_index(folder)


@st.cache_resource(max_entries=8, show_spinner="Reading packets …")
def packets(
    folder: Path,
    generation: int,  # noqa: ARG001 # what is kept is kept by it
    model: str,
    since: datetime,
    until: datetime,
) -> pd.DataFrame:
    """Give a model's packets in ``[since, until)``; ``generation`` is of the extract, so that a newer one is read."""
    return load_frame(folder, model=model, since=since, until=until, columns=COLUMNS)


@st.cache_resource(max_entries=8, show_spinner="Counting …")
def counts(folder: Path, generation: int, since: date, until: date) -> Overview:  # noqa: ARG001 # as above
    """Give the daily counts of all models from the day ``since`` to before ``until``."""
    return overview(folder, since=since, until=until)


@st.cache_resource(max_entries=2, show_spinner=False)
def manifests(folder: Path, generation: int) -> Mapping[str, Mapping[str, Manifest]]:  # noqa: ARG001 # as above
    """Give the manifests of the bundles that answered, by model and version."""
    return manifests_of(folder)
