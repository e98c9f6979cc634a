"""What one version of a model answered in a window of an extract: what reference periods and alarms are told from."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from deployr_core.monitoring.served_rows import ServedRows
from deployr_dash.loading import extracted_at, load_features, load_frame
from deployr_dash.panels.panel import View, Window
from deployr_dash.panels.served import NEEDS, served_rows
from deployr_dash.views import manifests_of


class NothingServed(ValueError):
    """There are no packets that a reference period, or a window, could be told from."""


def load_served(folder: Path, *, model: str, window: Window, version: str | None = None) -> tuple[ServedRows, str, str]:
    """Give what a version answered in a window, with the version and its bundle's digest.

    Args:
        folder: the extract's.
        model: whose packets.
        window: of ``received_at``.
        version: None takes that which answered last in the window.

    Raises:
        ExtractMissing: there is no extract.
        NothingServed: nothing with a score in the window.
    """
    frame = load_frame(folder, model=model, since=window.start, until=window.end, columns=(*NEEDS, "bundle_sha256"))
    scored = frame.loc[frame["score"].notna()]
    if version is not None:
        scored = scored.loc[scored["version"] == version]
    if scored.empty:
        raise NothingServed(
            f"expected packets of {model} with a score from {window.start:%Y-%m-%d} to before {window.end:%Y-%m-%d}"
        )
    last = scored.loc[scored["received_at"].idxmax()]
    newest, digest = str(last["version"]), str(last["bundle_sha256"])
    view = View(
        model_id=model,
        packets=frame,
        before=frame.iloc[:0],
        window=window,
        now=extracted_at(folder, frame),
        manifests=manifests_of(folder).get(model, {}),
    )
    features = load_features(folder, model=model, version=newest, since=window.start, until=window.end)
    return served_rows(view, features, newest), newest, digest


def served_days(folder: Path, *, model: str, version: str | None = None) -> tuple[date, date]:
    """Give the first and the last day, in UTC, that a version gave scores on; None: that which answered last.

    Raises:
        ExtractMissing: there is no extract.
        NothingServed: it never did.
    """
    frame = load_frame(folder, model=model, columns=("version", "received_at", "score"))
    scored = frame.loc[frame["score"].notna()]
    if version is None and not scored.empty:
        version = str(scored.loc[scored["received_at"].idxmax(), "version"])
    at = scored.loc[scored["version"] == version, "received_at"]
    if at.empty:
        raise NothingServed(f"expected packets of {model} with a score; look at deployr monitor extract")
    return at.min().date(), at.max().date()
