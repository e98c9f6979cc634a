"""What pages read of the extract, kept in memory until there is a newer one; nothing here changes a frame."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from deployr_core.bundle import Manifest
from deployr_core.governance.card import Card
from deployr_core.registry.comparison import Comparison
from deployr_dash.loading import load_frame
from deployr_dash.overview import overview
from deployr_dash.parts import ExtractMissing, Index, read_index
from deployr_dash.readings import Overview
from deployr_dash.registry import RegistryReader
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


def card_of(reader: RegistryReader, folder: Path, model: str, run: str) -> Card:
    """Give a run's papers with its checklist, at most a minute old.

    Raises:
        NothingOfTheRun: they cannot be made.
    """
    return _card(reader, _generation(folder), model, run)


def live_of(reader: RegistryReader, folder: Path, model: str, run: str, champion: str) -> Comparison:
    """Give a shadow beside its champion, by the extract.

    Raises:
        NothingOfTheRun: there is nothing to compare.
    """
    return _live(reader, _generation(folder), model, run, champion)


@st.cache_resource(max_entries=16, ttl=60, show_spinner="Going through the checklist …")
def _card(_reader: RegistryReader, generation: int, model: str, run: str) -> Card:  # noqa: ARG001 # as above
    return _reader.card(model, run)


@st.cache_resource(max_entries=16, ttl=3600, show_spinner="Comparing …")
def _live(
    _reader: RegistryReader,
    generation: int,  # noqa: ARG001 # as above
    model: str,
    run: str,
    champion: str,  # noqa: ARG001 # whose packets count
) -> Comparison:
    return _reader.live(model, run)


def _generation(folder: Path) -> int:
    try:
        return read_index(folder).generation
    except (ExtractMissing, OSError):
        return 0


@st.cache_resource(max_entries=2, show_spinner=False)
def manifests(folder: Path, generation: int) -> Mapping[str, Mapping[str, Manifest]]:  # noqa: ARG001 # as above
    """Give the manifests of the bundles that answered, by model and version."""
    return manifests_of(folder)
