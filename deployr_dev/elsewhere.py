"""Bundles of models that answer elsewhere: made of a bundle with the same features, by taking its model out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    Evaluation,
    Manifest,
    Training,
    describe_part,
)
from deployr_core.elsewhere import PredictorFile
from deployr_core.golden import GoldenVector
from deployr_core.model_format import HTTP_FILE, ModelFormat
from deployr_dev.trained import content_version


def answered_elsewhere(
    manifest: Manifest,
    parts: Mapping[str, bytes],
    file: PredictorFile,
    *,
    outputs: Sequence[tuple[float, ...]] | None = None,
    training: Training | None = None,
    evaluation: Evaluation | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """Give the manifest and parts of a bundle whose model answers elsewhere.

    Args:
        manifest: of a bundle with the declaration, the task and the golden rows that the model is to have.
        parts: of that bundle, by name; its model and calibration are left out.
        file: what the predictor is called, and how it is asked.
        outputs: what the model gives for each golden row; None: the very model of that bundle has moved.
        training: how the model came to be; None as for ``outputs``.
        evaluation: how it did; None as for ``outputs``.

    Raises:
        ValueError: another model's answers without its training and evaluation, or not one answer for each golden row.
    """
    if len({outputs is None, training is None, evaluation is None}) > 1:
        raise ValueError("expected another model's answers, training and evaluation together, or none of them")
    golden = msgspec.json.decode(parts[GOLDEN_FILE], type=tuple[GoldenVector, ...])
    if outputs is not None:
        golden = tuple(msgspec.structs.replace(row, outputs=given) for row, given in zip(golden, outputs, strict=True))
    kept = {
        FEATURES_FILE: parts[FEATURES_FILE],
        HTTP_FILE: file.to_json(),
        GOLDEN_FILE: msgspec.json.encode(golden),
    }
    return (
        msgspec.structs.replace(
            manifest,
            version=content_version(kept),
            parts={name: describe_part(content) for name, content in kept.items()},
            model=ModelFormat(kind="http"),
            training=training or manifest.training,
            evaluation=evaluation or manifest.evaluation,
        ),
        kept,
    )
