"""What each feature added to a model's number or took from it: exactly, the same bits every time, in part of a ms.

For trees these are path contributions: every node is given the value that its training rows expect, and a step from
a node to its child moves that value by something, which is the split feature's. The steps of a tree lead from its root
to the leaf that was scored, so what they add up to is the leaf; the roots together are the base. See
docs/explanations.md for what such numbers mean and what they do not.

Source: A. Saabas (2014), Interpreting random forests; S. Lundberg et al. (2020), Nat. Mach. Intell. 2:56-67,
doi:10.1038/s42256-019-0138-9, for what sets them apart from Shapley values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int32]


class ExplanationInvalid(ValueError):
    """The parts do not add up to the model's number by more than rounding: the explanation is wrong, not the score."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """A model's number in parts: ``base``, and one part a feature, shape (n_features,).

    ``explained``: of forests the probability or the number itself; of boosted trees and of linear models the sum that
    their last function is applied to, such as log-odds. ``rounding``: how far the parts' exact sum may be from it, as
    the model's own sum is rounded at every step; always 0 or more.
    """

    base: float
    by_feature: Floats
    explained: float
    rounding: float

    def closed(self, parts: list[float]) -> tuple[list[float], float]:
        """Make parts that are sums of ours add up to the last bit: ``math.fsum([base, *parts, rest]) == explained``.

        What rounding left over goes to the largest part that can hold it. It is ``rest`` only where none can, because
        all of them are too coarse for so small a number; otherwise that is 0.0.

        Raises:
            ExplanationInvalid: more is left over than rounding can leave.
        """
        left = -math.fsum([-self.explained, self.base, *parts])
        if not abs(left) <= self.rounding:
            raise ExplanationInvalid("expected parts that add up to the model's number")
        if math.fsum([self.base, *parts]) == self.explained:
            return parts, 0.0
        for place in np.argsort(-np.abs(parts), kind="stable").tolist():
            tried = [*parts[:place], parts[place] + left, *parts[place + 1 :]]
            if math.fsum([self.base, *tried]) == self.explained:
                return tried, 0.0
        return parts, left


class TreePaths:
    """The nodes of all trees of an ensemble in three flat arrays, 16 bytes a node, for one of its outputs.

    Of a node is kept where its parent stands, which feature was asked about there, and by how much the expected value
    moved. An inner node's value is the mean of its leaves, weighted by the training rows' weight or second derivative
    (``sum_hess``: scikit-learn's forests and gradient boosting, XGBoost), or else by their number (``data_count``:
    LightGBM, scikit-learn's histogram boosting). Where a checkpoint holds neither, every leaf counts the same.
    """

    def __init__(self, model: Any, *, target: int, column: int) -> None:
        header = model.get_header_accessor()
        width = int(header.get_field("leaf_vector_shape")[1])
        targets, classes = (header.get_field(name).tolist() for name in ("target_id", "class_id"))
        # An id of -1: the tree's leaves hold a number for each target, or each class.
        self._chosen = np.array(
            [
                number
                for number, ids in enumerate(zip(targets, classes, strict=True))
                if ids[0] in (-1, target) and ids[1] in (-1, column)
            ],
            dtype=np.int64,
        )
        trees = [model.get_tree_accessor(number) for number in self._chosen.tolist()]
        lefts = [tree.get_field("cleft") for tree in trees]
        sizes = np.array([each.size for each in lefts], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        shift = np.repeat(self._starts, sizes)
        left = _from_the_first_tree(lefts, shift)
        right = _from_the_first_tree([tree.get_field("cright") for tree in trees], shift)
        split = np.concatenate([tree.get_field("split_index") for tree in trees]).astype(np.int32)
        weight = np.concatenate([_leaf_weights(tree, size) for tree, size in zip(trees, sizes, strict=True)])
        values = [
            _leaf_values(
                tree,
                is_leaf=each < 0,
                place=(target if targets[number] == -1 else 0) * width + (column if classes[number] == -1 else 0),
            )
            for number, tree, each in zip(self._chosen.tolist(), trees, lefts, strict=True)
        ]
        value = np.concatenate(values).astype(np.float64)
        if header.get_field("average_tree_output")[0]:
            value /= len(trees)
        levels = _inner_levels(self._starts, left, right)
        _expect(value, weight, levels, left, right)
        # A root is its own parent, and moves nothing: so all trees can be walked for as long as the deepest.
        self._depth = len(levels)
        self._parent: Places = np.arange(value.size, dtype=np.int32)
        self._feature: Places = np.zeros(value.size, dtype=np.int32)
        self._moved: Floats = np.zeros(value.size)
        for inner in levels:
            for child in (left[inner], right[inner]):
                self._parent[child], self._feature[child] = inner, split[inner]
                self._moved[child] = value[child] - value[inner]
        self._n_features = int(header.get_field("num_feature")[0])
        start = np.asarray(header.get_field("base_scores"), dtype=np.float64)
        widest = max(int(each) for each in header.get_field("num_class"))
        self.base = math.fsum([*value[self._starts].tolist(), float(start[target * widest + column])])
        coarsest = min((np.asarray(each).dtype for each in values), key=lambda dtype: dtype.itemsize)
        self._step = float(np.finfo(coarsest).eps) * (len(trees) + 1)

    @property
    def nbytes(self) -> int:
        """The memory that the three arrays take."""
        return self._parent.nbytes + self._feature.nbytes + self._moved.nbytes

    def explanation(self, leaves: NDArray[Any], explained: float) -> Explanation:
        """Walk from each tree's leaf back to its root, all trees at once.

        Args:
            leaves: the node that each tree of the model ended in, as treelite numbers them, shape (n_trees,).
            explained: what the model made of these leaves.
        """
        path = np.empty((self._depth + 1, self._starts.size), dtype=np.int64)
        path[0] = leaves[self._chosen] + self._starts
        for below, above in pairwise(path):
            above[:] = self._parent[below]
        steps = path.ravel()
        moved = self._moved[steps]
        # bincount adds one by one, in the order given: the same bits every time, on any machine.
        added = np.bincount(self._feature[steps], weights=moved, minlength=self._n_features)
        by_feature: Floats = np.asarray(added, dtype=np.float64)
        size = abs(self.base) + abs(explained) + float(np.abs(moved).sum())
        return Explanation(base=self.base, by_feature=by_feature, explained=explained, rounding=self._step * size)


def _leaf_values(tree: Any, *, is_leaf: NDArray[np.bool_], place: int) -> NDArray[Any]:
    """Give each leaf's number in the model's own precision; of inner nodes nothing that counts."""
    vector = tree.get_field("leaf_vector")
    if not vector.size:
        scalars: NDArray[Any] = tree.get_field("leaf_value")
        return scalars
    held: NDArray[Any] = vector[np.where(is_leaf, tree.get_field("leaf_vector_begin").astype(np.int64) + place, 0)]
    return held


def _leaf_weights(tree: Any, size: int) -> Floats:
    for name in ("sum_hess", "data_count"):
        if (held := tree.get_field(name)).size:
            return np.asarray(held, dtype=np.float64)
    return np.ones(size)


def _from_the_first_tree(children: list[NDArray[Any]], shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the nodes of all trees on; a leaf's children stay -1."""
    found = np.concatenate(children).astype(np.int64)
    return np.where(found >= 0, found + shift, -1)


def _inner_levels(
    roots: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Give the inner nodes of all trees by their depth, the roots first."""
    levels = []
    level = roots
    while (inner := level[left[level] >= 0]).size:
        levels.append(inner)
        level = np.concatenate([left[inner], right[inner]])
    return levels


def _expect(
    value: Floats,
    weight: Floats,
    levels: list[NDArray[np.int64]],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> None:
    """Fill in the inner nodes' values and weights, from the leaves up."""
    for inner in reversed(levels):
        one, other = left[inner], right[inner]
        whole = weight[one] + weight[other]
        # No weight at all, as of rows that were weighted 0: half each.
        share = np.divide(weight[other], whole, out=np.full(whole.size, 0.5), where=whole > 0.0)
        weight[inner] = whole
        value[inner] = value[one] + share * (value[other] - value[one])
