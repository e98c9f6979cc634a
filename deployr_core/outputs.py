"""What a model gives for a row: one probability, one per class or label, or a number; and which of them is shown."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Target(StrEnum):
    """What kind of thing is predicted, and so what a label is.

    ``binary``: labels are 0 or 1. ``multiclass``: labels are whole numbers from 0, the places of the classes' names.
    ``multilabel``: labels of 0 or 1, shape (n_rows, n_labels). ``regression``: labels are any finite numbers.
    """

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"


class Outputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers of one answer, in their order.

    ``names``: the classes, the labels, or the one thing. ``headline``: which of them is the score that a column of the
    EMR shows. ``unit``: what a regression's number is in; None where the numbers are probabilities.

    Raises:
        ValueError: names that do not fit the target, or a headline that is none of them.
    """

    target: Target
    names: tuple[str, ...]
    headline: str
    unit: str | None = None

    def __post_init__(self) -> None:
        many = self.target in {Target.MULTICLASS, Target.MULTILABEL}
        if not all(self.names) or len(set(self.names)) != len(self.names) or (len(self.names) > 1) != many:
            raise ValueError("expected the name of one output, or of at least two classes or labels, each once")
        if self.headline not in self.names:
            raise ValueError(f"expected a headline that is one of {', '.join(self.names)}")
        if (self.unit is not None) != (self.target is Target.REGRESSION):
            raise ValueError("expected a unit with a number, and with nothing else")

    @property
    def place(self) -> int:
        """Where the headline stands among the outputs."""
        return self.names.index(self.headline)

    def named(self, numbers: Sequence[float]) -> dict[str, float]:
        """Give several outputs by their names; empty where there is but one, which the score says already."""
        return {} if len(self.names) == 1 else dict(zip(self.names, numbers, strict=True))


BINARY = Outputs(target=Target.BINARY, names=("positive",), headline="positive")
"""One probability, that of the outcome."""
