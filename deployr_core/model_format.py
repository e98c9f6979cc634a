"""How a model is kept in a bundle, and from its bytes to one that scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from deployr_core.estimator_model import EstimatorModel
from deployr_core.linear import LinearModel
from deployr_core.outputs import BINARY, Outputs
from deployr_core.scoring import Calibrated, InputType, ModelUnusable, Scorer, TreeEnsemble

MODEL_FILE = "model.treelite"
LINEAR_FILE = "model.json"
JOBLIB_FILE = "model.joblib"

HTTP_FILE = "model.http.json"

ModelKind = Literal["treelite", "linear", "joblib", "http"]
MODEL_FILES: Mapping[ModelKind, str] = {
    "treelite": MODEL_FILE,
    "linear": LINEAR_FILE,
    "joblib": JOBLIB_FILE,
    "http": HTTP_FILE,
}


class ModelFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is kept, and what its numbers are fed with; see `deployr_core.scoring`.

    ``runs_code`` says that loading it can do anything that the user of this machine can: true of joblib, and of nothing
    else. ``input_type`` and ``zero_is_missing`` are about trees.
    """

    kind: ModelKind = "treelite"
    input_type: InputType = "float32"
    zero_is_missing: bool = False
    runs_code: bool = False

    def __post_init__(self) -> None:
        if self.runs_code != (self.kind == "joblib"):
            raise ValueError("expected runs_code to be true of a joblib model, and of no other")
        if self.zero_is_missing and self.kind != "treelite":
            raise ValueError("expected zero_is_missing of trees only")

    @property
    def is_elsewhere(self) -> bool:
        """True of a model that answers over HTTP; see `deployr_core.elsewhere`."""
        return self.kind == "http"

    @property
    def takes_time(self) -> bool:
        """True of a model that may take long, or for ever: its code is somebody else's, here or elsewhere."""
        return self.runs_code or self.is_elsewhere

    def can_be_tried(self, *, allow_pickle: bool) -> bool:
        """Tell whether the model is tried out in a process of its own before it is loaded.

        Not what may not be loaded at all, nor what is not loaded here.
        """
        return (allow_pickle or not self.runs_code) and not self.is_elsewhere

    @property
    def file_name(self) -> str:
        """The part that holds the model."""
        return MODEL_FILES[self.kind]


def load_model(
    model: ModelFormat,
    content: bytes,
    *,
    n_features: int,
    outputs: Outputs = BINARY,
    calibration: bytes | None = None,
    estimator: object | None = None,
) -> Scorer:
    """Make a model's bytes ready to score. A model that runs code is not loaded here: ``estimator`` is it, loaded.

    Raises:
        ModelUnusable: the bytes are not such a model, or it has another number of features or outputs; or there is no
            model in them, because it answers elsewhere.
    """
    scorer: Scorer
    match model.kind:
        case "treelite":
            scorer = TreeEnsemble(
                content,
                n_features=n_features,
                input_type=model.input_type,
                zero_is_missing=model.zero_is_missing,
                outputs=outputs,
            )
        case "linear":
            scorer = LinearModel(content, n_features=n_features, outputs=outputs)
        case "joblib":
            scorer = EstimatorModel(estimator, n_features=n_features, outputs=outputs)
        case "http":
            raise ModelUnusable("expected a model that is in its file; this one answers elsewhere")
    return scorer if calibration is None else Calibrated(scorer, calibration)
