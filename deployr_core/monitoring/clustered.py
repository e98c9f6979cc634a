"""Weighted least squares whose errors may be alike within clusters, with intervals that hold for few clusters too.

The usual cluster-robust variance is too small where clusters are few, as they are in trials of wards. Here residuals
are inflated by their leverage (CR2, bias-reduced linearization), so that the variance is unbiased where errors are in
truth alike and independent, and the t distribution has the degrees of freedom that match the variance's own variance.

Source: R. M. Bell, D. F. McCaffrey (2002), Survey Methodology 28:169-181; J. E. Pustejovsky, E. Tipton (2018),
J. Bus. Econ. Stat. 36:672-683, doi:10.1080/07350015.2016.1247004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats, NotMeasurable, checked_weights

CONFIDENCE = 0.95
_SATURATED = 1.0 - 1e-9
"""A direction that one cluster alone decides has leverage 1: its residual is 0 and says nothing about the variance."""
_SINGULAR = 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """A difference with its 95 % interval. ``clusters``: how many independent units stand behind it.

    ``p_value``: two-sided, of no difference. Under about 4 ``degrees_of_freedom`` both are rough.
    """

    value: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    p_value: float
    clusters: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusteredFit:
    """Coefficients, shape (n_columns,), and what their variance is made of, one row for each cluster.

    ``root``: with its transpose it gives the inverse of X'WX, shape (n_columns, n_columns). ``leverages`` and
    ``directions``: eigenvalues and eigenvectors of each cluster's share of the whole, shapes (n_clusters, n_columns)
    and (n_clusters, n_columns, n_columns). ``scores``: each cluster's sum of column times residual, in the same
    coordinates, shape (n_clusters, n_columns).
    """

    coefficients: Floats
    root: Floats
    leverages: Floats
    directions: Floats
    scores: Floats

    def covariance(self) -> Floats:
        """Give the CR2 covariance of the coefficients, shape (n_columns, n_columns)."""
        inflated = self._in_directions(self.scores) * _powers(self.leverages)
        adjusted = np.einsum("gij,gj->gi", self.directions, inflated) @ self.root.T
        return np.asarray(adjusted.T @ adjusted)

    def contrast(self, weights: Floats) -> Effect:
        """Give a weighted sum of coefficients, such as one of them, with its interval.

        Raises:
            NotMeasurable: so few clusters that nothing is left to tell the variance from.
        """
        from scipy.special import stdtr, stdtrit

        weights = np.asarray(weights, dtype=np.float64)
        variance, value = float(weights @ self.covariance() @ weights), float(weights @ self.coefficients)
        freedom = self._degrees_of_freedom(weights)
        if not variance > 0.0 or not freedom > 0.0:
            raise NotMeasurable("expected outcomes that differ, and more than one cluster on each side")
        error = float(np.sqrt(variance))
        reach = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
        return Effect(
            value=value,
            low=value - reach,
            high=value + reach,
            standard_error=error,
            degrees_of_freedom=freedom,
            p_value=float(2.0 * stdtr(freedom, -abs(value) / error)),
            clusters=len(self.leverages),
        )

    def _degrees_of_freedom(self, weights: Floats) -> float:
        """Match the variance's mean and variance under independent errors: Satterthwaite's approximation.

        The variance is a quadratic form of the errors; between clusters its matrix is ``diag(own) - shared shared'``,
        so that its traces need no matrix of all clusters by all clusters.
        """
        aimed = self._in_directions(np.broadcast_to(weights @ self.root, self.scores.shape))
        inflated = _powers(self.leverages)
        own = (aimed**2 * self.leverages * inflated**2).sum(axis=1)
        shared = np.einsum("gij,gj->gi", self.directions, aimed * self.leverages * inflated)
        squares = (shared**2).sum(axis=1)
        trace = own.sum() - squares.sum()
        of_square = (own**2).sum() - 2.0 * (own * squares).sum() + ((shared.T @ shared) ** 2).sum()
        return float(trace**2 / of_square) if trace > 0.0 and of_square > 0.0 else 0.0

    def _in_directions(self, vectors: Floats) -> Floats:
        return np.asarray(np.einsum("gji,gj->gi", self.directions, vectors))


def clustered_fit(
    design: Floats, outcomes: Floats, clusters: NDArray[np.int64], *, weights: Floats | None = None
) -> ClusteredFit:
    """Fit outcomes to the columns of a design.

    Args:
        design: shape (n_rows, n_columns), the constant among them.
        outcomes: shape (n_rows,).
        clusters: which independent unit each row belongs to, any integers, shape (n_rows,).
        weights: of the rows, not below 0; rows of weight 0 take no part. None is 1 each.

    Raises:
        NotMeasurable: fewer than two clusters, or columns that cannot be told apart.
        ValueError: shapes differ, or a number is not finite.
    """
    design, outcomes = np.asarray(design, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    clusters = np.asarray(clusters)
    if design.ndim != 2 or outcomes.shape != design.shape[:1] or clusters.shape != outcomes.shape:
        raise ValueError("expected a design of shape (n_rows, n_columns), with an outcome and a cluster for each row")
    if not (np.isfinite(design).all() and np.isfinite(outcomes).all()):
        raise ValueError("expected finite numbers")
    row_weights = checked_weights(weights, outcomes.shape) if outcomes.size else np.ones(0)
    heavy = row_weights > 0.0
    scale = np.sqrt(row_weights[heavy])
    scaled, target = design[heavy] * scale[:, np.newaxis], outcomes[heavy] * scale
    ids, cluster_of_row = np.unique(clusters[heavy], return_inverse=True)
    if ids.size < 2:
        raise NotMeasurable("expected at least two clusters")

    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    sizes = np.sqrt((scaled**2).sum(axis=0))
    smallest = np.linalg.svd(scaled / np.where(sizes > 0.0, sizes, 1.0), compute_uv=False)[-1]
    if values[0] <= 0.0 or smallest**2 < _SINGULAR or len(target) <= design.shape[1]:
        raise NotMeasurable("expected more rows than columns, and columns that can be told apart")
    root = (vectors / np.sqrt(values)) @ vectors.T
    whitened = scaled @ root
    coefficients = root @ (whitened.T @ target)
    residuals = target - scaled @ coefficients
    # What rounding leaves of an exact fit is no variance.
    residuals[np.abs(residuals) <= 1e-12 * np.abs(target).max()] = 0.0
    columns = range(design.shape[1])
    shares = np.empty((ids.size, len(columns), len(columns)))
    for i in columns:
        for j in range(i + 1):
            shares[:, i, j] = shares[:, j, i] = _summed(whitened[:, i] * whitened[:, j], cluster_of_row, ids.size)
    leverages, directions = np.linalg.eigh(shares)
    scores = np.stack([_summed(whitened[:, i] * residuals, cluster_of_row, ids.size) for i in columns], axis=1)
    return ClusteredFit(
        coefficients=coefficients,
        root=root,
        leverages=np.clip(leverages, 0.0, 1.0),
        directions=directions,
        scores=scores,
    )


def _powers(leverages: Floats) -> Floats:
    """Give ``(1 - leverage) ** -1/2``, and 0 where there is nothing left to inflate."""
    left = np.where(leverages < _SATURATED, 1.0 - leverages, np.inf)
    return np.asarray(1.0 / np.sqrt(left))


def _summed(values: Floats, cluster_of_row: NDArray[np.intp], clusters: int) -> Floats:
    return np.bincount(cluster_of_row, weights=values, minlength=clusters).astype(np.float64)
