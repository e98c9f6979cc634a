"""A shadow beside its champion, from the extract: the same orders, both scores, and what came of them. Pure."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from deployr_core.bootstrap import RESAMPLES
from deployr_core.monitoring.paired import PairedRows, compare
from deployr_core.registry.comparison import Comparison, Model, Rows
from deployr_dash.panels.panel import is_ripe, patients_of, words_of

_WHO = ("sex", "age_band", "race", "ethnicity", "language", "insurance")
COLUMNS = (
    "packet_id",
    "shadow_of",
    "version",
    "bundle_sha256",
    "received_at",
    "kind",
    "score",
    "value_unit",
    "threshold",
    "patient_code",
    "label_kind",
    "label_value",
    "label_ripe_at",
    *_WHO,
)
"""What is needed of both frames."""


class NotPaired(ValueError):
    """There is nothing that both scored and that could be compared; the message says what is missing."""


def live_comparison(
    champion: pd.DataFrame,
    shadow: pd.DataFrame,
    *,
    names: tuple[str, str],
    outcome: str,
    now: datetime,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare what a champion and its shadow said of the same requests with what came of them.

    Only packets whose outcome was observed and can change no more count, of the bundle that the champion serves now and
    of the shadow's latest. What only one of the two has a score for is counted as unpaired; where a shadow was skipped
    while the app was busy, that is a reason to look before the figures are believed.

    Args:
        champion: the champion's packets, with `COLUMNS`.
        shadow: the shadow's.
        names: what the two are called.
        outcome: what is predicted, in words.
        now: labels that are not ripe by now do not count.
        rng: where the resampling of patients comes from.
        resamples: of each interval.

    Raises:
        NotPaired: no packet of the shadow's, a score that is no probability, or no pair with an outcome yet.
    """
    followed = shadow[shadow["shadow_of"].notna()]
    if not len(followed):
        raise NotPaired(f"expected packets of {names[1]} that follow those of {names[0]}, but there are none")
    followed = _latest(followed)
    pairs = champion.merge(followed, left_on="packet_id", right_on="shadow_of", how="inner", suffixes=("", "_shadow"))
    if not len(pairs):
        raise NotPaired(f"expected {names[1]} to follow packets of {names[0]}; those that it follows are not here")
    began, ended = pairs["received_at"].min(), pairs["received_at"].max()
    of_now = _latest(champion[champion["received_at"].between(began, ended)])
    asked = of_now.merge(followed, left_on="packet_id", right_on="shadow_of", how="left", suffixes=("", "_shadow"))
    if asked["value_unit"].notna().any() or asked["value_unit_shadow"].notna().any():
        raise NotPaired("expected scores that are probabilities")
    labels, is_final = _labels(asked, now)
    first, second = (asked["kind"] == "scored").to_numpy(), (asked["kind_shadow"] == "scored").to_numpy()
    counts = is_final & first & second
    if not counts.any():
        raise NotPaired(f"expected an outcome that is known for good of a request that both scored, of {len(asked):,}")
    rows = asked[counts]
    thresholds = rows["threshold"].dropna()
    return compare(
        PairedRows(
            labels=labels[counts],
            champion=rows["score"].to_numpy(dtype=np.float64),
            challenger=rows["score_shadow"].to_numpy(dtype=np.float64),
            patients=patients_of(rows),
            properties={name: words_of(rows[name]) for name in _WHO if rows[name].notna().any()},
        ),
        champion=_model(names[0], rows, ""),
        challenger=_model(names[1], rows, "_shadow"),
        rows_are=Rows.LIVE,
        outcome=outcome,
        rng=rng,
        threshold=float(thresholds.iloc[-1]) if len(thresholds) and 0.0 < thresholds.iloc[-1] < 1.0 else None,
        unpaired_rows=int((is_final & (first != second)).sum()),
        resamples=resamples,
    )


def _latest(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the packets of the bundle that answered last, in the order in which they came."""
    ordered = frame.sort_values("received_at", kind="stable")
    answered = ordered.loc[ordered["bundle_sha256"].astype(str) != "", "bundle_sha256"].astype(str)
    if not len(answered):
        return ordered
    # What had no bundle that could be used is a failure of whichever was to answer.
    digests = ordered["bundle_sha256"].astype(str)
    return ordered[(digests == answered.iloc[-1]) | (digests == "")]


def _labels(asked: pd.DataFrame, now: datetime) -> tuple[np.ndarray, np.ndarray]:
    """Give each request's outcome, the champion's packet's where it has one, and whether it is known for good."""
    values, final = np.full(len(asked), np.nan), np.zeros(len(asked), dtype=bool)
    for suffix in ("_shadow", ""):
        observed = (asked[f"label_kind{suffix}"] == "observed").to_numpy()
        label = asked[f"label_value{suffix}"].to_numpy(dtype=np.float64, na_value=np.nan)
        counts = observed & np.isfinite(label) & is_ripe(asked[f"label_ripe_at{suffix}"], now=now)
        values[counts], final[counts] = label[counts], True
    return values, final


def _model(name: str, rows: pd.DataFrame, suffix: str) -> Model:
    return Model(
        name=name,
        version=str(rows[f"version{suffix}"].iloc[-1]),
        bundle_sha256=str(rows[f"bundle_sha256{suffix}"].iloc[-1]),
    )
