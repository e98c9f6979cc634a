"""What comes of alerting at a threshold, and the thresholds that alert so often or find so much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployr_core.bootstrap import Floats, NotMeasurable, Ratios
from deployr_core.metrics import A_NEGATIVE, A_POSITIVE, checked_rows


def threshold_figures(labels: Floats, scores: Floats, thresholds: Sequence[float]) -> Ratios:
    """Give what there is to measure when every score of at least the threshold alerts.

    The figures of threshold ``i`` are named ``sensitivity@i``, ``specificity@i``, ``ppv@i``, ``npv@i`` and
    ``alert_rate@i``. The thresholds stay as they are in every resample, as they will in service.

    Raises:
        ValueError: as for `auroc`.
    """
    labels, scores = checked_rows(labels, scores)
    positive, one = labels == 1.0, np.ones(labels.size, dtype=np.bool_)
    above, below, names, lacks = [], [], [], []
    for number, threshold in enumerate(thresholds):
        alert = scores >= threshold
        for name, counted, among, lacking in (
            ("sensitivity", alert & positive, positive, A_POSITIVE),
            ("specificity", ~alert & ~positive, ~positive, A_NEGATIVE),
            ("ppv", alert & positive, alert, "a row with an alert"),
            ("npv", ~alert & ~positive, ~alert, "a row without an alert"),
            ("alert_rate", alert, one, "at least one row"),
        ):
            above.append(counted)
            below.append(among)
            names.append(f"{name}@{number}")
            lacks.append(lacking)
    shape = (labels.size, len(names))
    return Ratios(
        names=tuple(names),
        lacks=tuple(lacks),
        numerators=np.array(above, dtype=np.float64).T.reshape(shape),
        denominators=np.array(below, dtype=np.float64).T.reshape(shape),
        shares=(True,) * len(names),
    )


def threshold_at_alert_rate(scores: Floats, rate: float) -> float:
    """Give the lowest score that, as a threshold, alerts on at most ``rate`` of the rows.

    Raises:
        NotMeasurable: more rows than that share the highest score, so any threshold alerts on too many or on none.
        ValueError: ``rate`` is not above 0 and at most 1, or there are no rows.
    """
    _check_share("alert rate", rate)
    distinct, alerts = _alerts_at_least(scores, np.ones(np.shape(scores)))
    within = np.flatnonzero(alerts <= rate * np.size(scores) * (1 + 1e-12))
    if within.size == 0:
        raise NotMeasurable(
            f"expected a threshold that alerts on at most {rate:g} of the rows, but the highest score alone is shared"
            f" by {alerts[0] / np.size(scores):.3g} of them"
        )
    return float(distinct[within[-1]])


def threshold_at_sensitivity(labels: Floats, scores: Floats, sensitivity: float) -> float:
    """Give the highest score that, as a threshold, finds at least ``sensitivity`` of the positive rows.

    Raises:
        NotMeasurable: no positive row.
        ValueError: as for `auroc`, or ``sensitivity`` is not above 0 and at most 1.
    """
    labels, scores = checked_rows(labels, scores)
    _check_share("sensitivity", sensitivity)
    if not (labels == 1.0).any():
        raise NotMeasurable(f"expected {A_POSITIVE}")
    distinct, found = _alerts_at_least(scores, labels)
    return float(distinct[np.flatnonzero(found >= sensitivity * labels.sum() * (1 - 1e-12))[0]])


def _alerts_at_least(scores: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Give the distinct scores from the highest down, and the sum of ``counts`` of the rows at or above each."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError("expected finite scores, shape (n_rows,), at least one")
    distinct, place = np.unique(scores, return_inverse=True)
    return distinct[::-1], np.cumsum(np.bincount(place, weights=counts)[::-1])


def _check_share(what: str, share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"expected a {what} above 0 and at most 1, got {share:g}")
