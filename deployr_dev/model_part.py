"""A model as a bundle ships it: a kind, a file, and how to score with it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from deployr_core.bundle import CALIBRATION_FILE
from deployr_core.estimator_model import output_columns
from deployr_core.model_format import ModelFormat, ModelKind, load_model
from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.scoring import InputType, ModelUnusable, Scorer


class EstimatorRefused(ValueError):
    """The estimator cannot be shipped as it is; the message says what to do instead."""


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """A model as a bundle ships it. ``calibration``: the bytes of ``calibration.json``, where there is one."""

    kind: ModelKind
    file_name: str
    content: bytes = field(repr=False)
    zero_is_missing: bool = False
    runs_code: bool = False
    input_type: InputType = "float32"
    calibration: bytes | None = field(default=None, repr=False)
    outputs: Outputs = BINARY

    @property
    def format(self) -> ModelFormat:
        """What the manifest says of it, under ``model``."""
        return ModelFormat(
            kind=self.kind,
            input_type=self.input_type,
            zero_is_missing=self.zero_is_missing,
            runs_code=self.runs_code,
        )

    def files(self) -> dict[str, bytes]:
        """Give its parts of the bundle by file name."""
        calibration = {} if self.calibration is None else {CALIBRATION_FILE: self.calibration}
        return {self.file_name: self.content, **calibration}

    def scorer(self, *, n_features: int) -> Scorer:
        """Give the function that scores one row as the deployed bundle will.

        A model that runs code is deserialised for it: do this only with a part made in this process.
        """
        return load_model(
            self.format,
            self.content,
            n_features=n_features,
            outputs=self.outputs,
            calibration=self.calibration,
            estimator=joblib_load(self.content) if self.runs_code else None,
        )


def new_part(
    kind: ModelKind,
    content: bytes,
    outputs: Outputs,
    *,
    input_type: InputType = "float32",
    zero_is_missing: bool = False,
) -> ModelPart:
    """Give a part without a calibration."""
    runs_code = kind == "joblib"
    made = ModelFormat(kind=kind, input_type=input_type, zero_is_missing=zero_is_missing, runs_code=runs_code)
    return ModelPart(
        kind=kind,
        file_name=made.file_name,
        content=content,
        zero_is_missing=zero_is_missing,
        runs_code=runs_code,
        input_type=input_type,
        outputs=outputs,
    )


def joblib_load(content: bytes) -> object:
    """Deserialise a joblib file, which runs code."""
    import joblib

    loaded: object = joblib.load(io.BytesIO(content))
    return loaded


def expect_labels_in_order(estimator: Any, outputs: Outputs) -> None:
    """Check that the columns of a classifier stand in the order of the outputs; a regression has none.

    Raises:
        EstimatorRefused: they do not, or it was trained on other labels.
    """
    if not hasattr(estimator, "classes_"):
        return
    name = type(estimator).__name__
    try:
        columns = output_columns(estimator, outputs)
    except ModelUnusable as error:
        raise EstimatorRefused(f"{name}: {error}") from None
    several = outputs.target is Target.MULTICLASS
    if columns != (tuple(range(len(columns))) if several else (1,) * len(columns)):
        raise EstimatorRefused(f"{name}: expected classes_ in the order {'of the classes' if several else '0, 1'}")
