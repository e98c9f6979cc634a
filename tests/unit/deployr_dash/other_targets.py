"""The made-up season of models that predict classes, labels or a number, in place of one outcome."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd

from deployr_core.bundle import Estimate, Manifest
from deployr_core.label_rules import Answer, LabComponent, LabelRule, LabPanel, outputs_of
from deployr_dash.panels.panel import View
from tests.unit.deployr_dash.made_up import manifest, packets, view

LEVEL = LabComponent(components=("777-3",), window_hours=72, answer=Answer.LEVEL)
PANEL = LabPanel(components={"hemoglobin": ("718-7",), "hematocrit": ("4544-3",)}, window_hours=72)
VALUE = LabComponent(components=("718-7",), window_hours=72, answer=Answer.VALUE, unit="g/dL")
RULES: dict[str, tuple[LabelRule, str | None]] = {
    "classes": (LEVEL, "low"),
    "labels": (PANEL, "hematocrit"),
    "numbers": (VALUE, None),
}


def manifest_of(kind: str) -> Manifest:
    """Give the manifest of a model of ``classes``, ``labels`` or ``numbers``."""
    plain = manifest()
    rule, headline = RULES[kind]
    outputs = outputs_of(rule, headline=headline)
    means = dict.fromkeys(outputs.names, 0.5)
    figures = (
        {"mae": Estimate(value=0.8, low=0.7, high=0.9), "bias": Estimate(value=0.0, low=-0.1, high=0.1)}
        if kind == "numbers"
        else {
            "auroc": Estimate(value=0.8, low=0.78, high=0.82),
            **{f"auroc.{name}": Estimate(value=0.8, low=0.75, high=0.85) for name in outputs.names},
        }
    )
    return msgspec.structs.replace(
        plain,
        task=msgspec.structs.replace(plain.task, rule=rule, outputs=outputs),
        training=msgspec.structs.replace(plain.training, label_means=means),
        evaluation=msgspec.structs.replace(plain.evaluation, label_means=means, figures=figures),
    )


def answered(frame: pd.DataFrame, kind: str, answers: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Give the packets with these answers, shape (n_rows, n_outputs), and these labels instead of their own."""
    rule, headline = RULES[kind]
    outputs = outputs_of(rule, headline=headline)
    scored, seen = frame["kind"] == "scored", frame["label_kind"] == "observed"
    named = [list(zip(outputs.names, row.tolist(), strict=True)) for row in answers]
    changes: dict[str, object] = {
        "score": np.where(scored, answers[:, outputs.place], np.nan),
        "label_value": np.nan,
    }
    if kind == "numbers":
        changes |= {
            "label_value": np.where(seen, labels, np.nan),
            "value_unit": pd.Categorical(np.where(scored, outputs.unit, None)),
        }
    else:
        changes["outputs"] = pd.Series(
            [row if is_scored else None for row, is_scored in zip(named, scored, strict=True)]
        )
    if kind == "classes":
        names = np.array(outputs.names, dtype=object)[labels.astype(int)]
        changes["label_class"] = pd.Categorical(np.where(seen, names, None))
    if kind == "labels":
        several = [list(zip(outputs.names, row.tolist(), strict=True)) for row in labels]
        changes["label_values"] = pd.Series(
            [row if is_seen else None for row, is_seen in zip(several, seen, strict=True)]
        )
    return frame.reset_index(drop=True).assign(**changes)


def season_of(kind: str, n: int = 900) -> pd.DataFrame:
    """Give a season of packets whose answers are right on the whole."""
    frame, rng = packets(n), np.random.default_rng(4)
    if kind == "numbers":
        said = rng.normal(12.0, 2.0, n)
        return answered(frame, kind, said[:, np.newaxis], said + rng.normal(0.0, 1.0, n))
    if kind == "labels":
        chances = np.clip(rng.beta(2, 3, (n, 2)), 0.01, 0.99)
        return answered(frame, kind, chances, (rng.random((n, 2)) < chances).astype(float))
    shares = rng.dirichlet((1.0, 2.0, 1.0), n)
    drawn = (rng.random(n)[:, np.newaxis] > np.cumsum(shares, axis=1)).sum(axis=1)
    return answered(frame, kind, shares, drawn.astype(float))


def view_of_kind(kind: str, frame: pd.DataFrame | None = None, *, first_day: int = 0) -> View:
    """Give a view of a model of that kind."""
    found = view(season_of(kind) if frame is None else frame, first_day=first_day)
    return replace(found, manifests={"3d4e5f": manifest_of(kind)})
