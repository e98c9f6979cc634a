"""Which settings of an estimator are tried, as data: in a task file, or in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from deployr_dev.yaml_files import FileInvalid, read_yaml


class SearchInvalid(ValueError):
    """The search file does not say what it must; the message names the file and the key."""


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search over an estimator's parameters, scored on folds of the training patients.

    ``kind``: ``grid`` tries every combination, ``random`` draws ``iterations`` of them. ``folds``: a patient's rows
    are in one fold only. ``scoring``: a name that scikit-learn knows; a higher value is better. ``parameters``: each
    with the values to try; a pipeline's parameters belong to its last step.

    Source: scikit-learn user guide, "Tuning the hyper-parameters of an estimator".
    """

    kind: Literal["grid", "random"] = "random"
    iterations: int = 20
    folds: int = 3
    scoring: str = "roc_auc"
    parameters: dict[str, list[str | int | float | bool | None]]

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= 20:
            raise ValueError("expected folds from 2 to 20")
        if not 1 <= self.iterations <= 10_000:
            raise ValueError("expected iterations from 1 to 10000")
        if not self.parameters or not all(self.parameters.values()):
            raise ValueError("expected at least one parameter, and at least one value for each")


def load_search(path: Path) -> Search:
    """Read a search file (YAML).

    Raises:
        SearchInvalid: cannot be read, not YAML, a key missing, misspelt or of the wrong type, or a value that cannot
            be.
    """
    try:
        return read_yaml(path, Search)
    except FileInvalid as error:
        raise SearchInvalid(str(error)) from None
