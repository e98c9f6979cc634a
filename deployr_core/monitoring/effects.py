"""What showing the advisory changed: arms as they were assigned, with intervals that respect what was assigned.

Whoever is assigned is counted in that arm, whatever was then shown or done; so chance alone tells the arms apart. What
became of the advisories on the way is said beside it (`adherence`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, NotMeasurable, Ratios, measure
from deployr_core.monitoring.clustered import Effect, clustered_fit

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The arms side by side. ``effect``: treated less control, adjusted where covariates were given.

    ``control`` and ``treated``: the arms' weighted mean outcomes, as they are. ``variance_saved``: the share of the
    unadjusted effect's variance that adjustment took away; 0 without covariates, below 0 where it did harm.
    """

    control: float
    treated: float
    effect: Effect
    variance_saved: float


def intention_to_treat(
    outcomes: Floats,
    treated: Booleans,
    clusters: NDArray[np.int64],
    *,
    covariates: Floats | None = None,
    weights: Floats | None = None,
) -> Comparison:
    """Compare two arms as assigned.

    Covariates known before the assignment make the interval shorter and the effect no other: each is centred and may
    matter differently in each arm. With the outcome of the same unit before the trial as the covariate this is CUPED.
    Strata within which the arms were balanced belong among them, a column for each but one. Never adjust for what the
    advisory may have changed.

    To compare what was shown with what was hidden by exploration, give ``shown`` as ``treated`` and the inverse of the
    stored probability of what was decided as ``weights``.

    Args:
        outcomes: any numbers, shape (n_rows,).
        treated: whether the row's unit was assigned to the arm that shows, shape (n_rows,).
        clusters: what was assigned as a whole, see `deployr_core.monitoring.designs.clusters_of`, shape (n_rows,).
        covariates: shape (n_rows, n_covariates).
        weights: of the rows; None is 1 each.

    Raises:
        NotMeasurable: an arm has fewer than two clusters, outcomes do not differ, or covariates cannot be told apart.
        ValueError: shapes differ, or a number is not finite.

    Source: W. Lin (2013), Ann. Appl. Stat. 7:295-318, doi:10.1214/12-AOAS583; A. Deng, Y. Xu, R. Kohavi, T. Walker
    (2013), WSDM, doi:10.1145/2433396.2433413 (CUPED).
    """
    outcomes, treated = np.asarray(outcomes, dtype=np.float64), np.asarray(treated, dtype=np.bool_)
    if treated.shape != outcomes.shape:
        raise ValueError("expected one arm for each outcome")
    if any(np.unique(np.asarray(clusters)[side]).size < 2 for side in (treated, ~treated)):
        raise NotMeasurable("expected at least two clusters in each arm")
    arm = treated.astype(np.float64)
    plain_design = np.column_stack([np.ones_like(arm), arm])
    plain = clustered_fit(plain_design, outcomes, clusters, weights=weights)
    effect = unadjusted = plain.contrast(np.array([0.0, 1.0]))
    if covariates is not None:
        centred = np.asarray(covariates, dtype=np.float64)
        if centred.ndim != 2 or len(centred) != outcomes.size:
            raise ValueError("expected covariates of shape (n_rows, n_covariates)")
        centred = centred - np.average(centred, axis=0, weights=weights)
        design = np.column_stack([plain_design, centred, centred * arm[:, np.newaxis]])
        fit = clustered_fit(design, outcomes, clusters, weights=weights)
        effect = fit.contrast(np.eye(design.shape[1])[1])
    return Comparison(
        control=float(plain.coefficients[0]),
        treated=float(plain.coefficients.sum()),
        effect=effect,
        variance_saved=1.0 - (effect.standard_error / unadjusted.standard_error) ** 2,
    )


def stepped_wedge(
    outcomes: Floats, treated: Booleans, periods: NDArray[np.int64], clusters: NDArray[np.int64]
) -> Effect:
    """Give the effect where clusters change over from control to treated one after another, and never back.

    What differs between periods and between clusters is taken out as fixed effects, so each cluster is compared with
    itself, and with those that have not changed over yet. It is taken to be there at once and to stay as it is; an
    effect that grows with time is underestimated.

    Args:
        outcomes: shape (n_rows,).
        treated: whether the cluster had changed over in the row's period, shape (n_rows,).
        periods: in their order, any integers, shape (n_rows,).
        clusters: shape (n_rows,).

    Raises:
        NotMeasurable: fewer than two clusters, or no period in which some have changed over and others have not.
        ValueError: shapes differ, or a cluster that was treated is not any more, or is both in one period.

    Source: M. A. Hussey, J. P. Hughes (2007), Contemp. Clin. Trials 28:182-191, doi:10.1016/j.cct.2006.05.007.
    """
    outcomes, treated = np.asarray(outcomes, dtype=np.float64), np.asarray(treated, dtype=np.bool_)
    periods, clusters = np.asarray(periods), np.asarray(clusters)
    if not outcomes.shape == treated.shape == periods.shape == clusters.shape or outcomes.ndim != 1:
        raise ValueError("expected one arm, period and cluster for each outcome")
    period_names, period = np.unique(periods, return_inverse=True)
    cluster_names, cluster = np.unique(clusters, return_inverse=True)
    if cluster_names.size < 2 or period_names.size < 2:
        raise NotMeasurable("expected at least two clusters and two periods")
    _check_steps(treated, period, cluster, shape=(cluster_names.size, period_names.size))
    dummies = (period[:, np.newaxis] == np.arange(1, period_names.size)).astype(np.float64)
    columns = np.column_stack([treated.astype(np.float64), dummies, outcomes])
    # Taking out the clusters' means is the same as a fixed effect for each, in the estimate and in its CR2 variance.
    size = np.bincount(cluster)
    means = np.column_stack([np.bincount(cluster, weights=column) / size for column in columns.T])
    within = columns - means[cluster]
    fit = clustered_fit(within[:, :-1], within[:, -1], clusters)
    return fit.contrast(np.eye(within.shape[1] - 1)[0])


def adherence(
    advised: Booleans,
    shown: Booleans,
    accepted: Booleans,
    overridden: Booleans,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Give what became of the advisories, as shares with intervals from a bootstrap of patients.

    The figures are ``shown_of_advised``, ``shown_of_not_advised`` (in a trial: the control arm's leak), and of those
    shown ``accepted_of_shown``, ``overridden_of_shown`` and ``unanswered_of_shown``.

    Args:
        advised: the decision was to show, shape (n_rows,).
        shown: it was reported as shown, and so for ``accepted`` and ``overridden``.
        patients: which patient each row belongs to, shape (n_rows,).
        rng: where the resampling comes from.
        resamples: how many samples to draw.

    Raises:
        ValueError: no rows, or shapes differ.
    """
    shares = {
        "shown_of_advised": (shown & advised, advised, "an advisory that was to be shown"),
        "shown_of_not_advised": (shown & ~advised, ~advised, "an inference that was not to be shown"),
        "accepted_of_shown": (shown & accepted, shown, "an advisory that was shown"),
        "overridden_of_shown": (shown & overridden & ~accepted, shown, "an advisory that was shown"),
        "unanswered_of_shown": (shown & ~accepted & ~overridden, shown, "an advisory that was shown"),
    }
    ratios = Ratios(
        names=tuple(shares),
        lacks=tuple(lacks for _, _, lacks in shares.values()),
        numerators=np.column_stack([above for above, _, _ in shares.values()]).astype(np.float64),
        denominators=np.column_stack([below for _, below, _ in shares.values()]).astype(np.float64),
        shares=(True,) * len(shares),
    )
    return measure([ratios], patients, rng=rng, resamples=resamples)


def _check_steps(
    treated: Booleans, period: NDArray[np.intp], cluster: NDArray[np.intp], *, shape: tuple[int, int]
) -> None:
    count, switched = np.zeros(shape), np.zeros(shape)
    np.add.at(count, (cluster, period), 1.0)
    np.add.at(switched, (cluster, period), treated)
    if ((switched > 0) & (switched < count)).any():
        raise ValueError("expected every cluster to be wholly control or wholly treated in each period")
    highest = np.maximum.accumulate(switched > 0, axis=1)
    if (highest & (count > 0) & (switched == 0)).any():
        raise ValueError("expected no cluster to go back to control")
    among = count.sum(axis=0)
    if not ((switched.sum(axis=0) > 0) & (switched.sum(axis=0) < among)).any():
        raise NotMeasurable("expected a period in which some clusters have changed over and others have not")
