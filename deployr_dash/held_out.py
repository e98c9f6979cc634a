"""The curves of a model on held-out history, as training wrote them: what the curves in service are drawn against."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from deployr_core.bootstrap import Interval

REPORT_FILE = "report.json"
"""What `deployr train` writes beside the page for the committee."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One version's curves on rows that it never saw.

    ``roc``: false positive rates with sensitivities, from the highest threshold down. ``precision_recall``: recalls
    with precisions, likewise. ``calibration``: mean scores with the share that had the outcome. Each is empty where the
    rows could not carry it.
    """

    model_id: str
    version: str
    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    calibration: tuple[tuple[float, Interval], ...]


class _Manifest(msgspec.Struct, frozen=True):
    model_id: str
    version: str


class _Curve(msgspec.Struct, frozen=True):
    false_positive_rates: tuple[float, ...] = ()
    sensitivities: tuple[float, ...] = ()
    recalls: tuple[float, ...] = ()
    precisions: tuple[float, ...] = ()


class _Share(msgspec.Struct, frozen=True):
    kind: str
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    resamples: int = 0


class _Bin(msgspec.Struct, frozen=True):
    mean_score: float
    observed: _Share


class _Evaluation(msgspec.Struct, frozen=True):
    roc: _Curve = _Curve()
    precision_recall: _Curve = _Curve()
    calibration: tuple[_Bin, ...] = ()


class _Report(msgspec.Struct, frozen=True):
    """The few keys that are read; a report has many more, and a curve that was not measured has none of its own."""

    manifest: _Manifest
    evaluation: _Evaluation


def parse_held_out(content: bytes) -> HeldOut | None:
    """Read a ``report.json``; None where it is none, such as another program's file of that name."""
    try:
        report = msgspec.json.decode(content, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    found = report.evaluation
    return HeldOut(
        model_id=report.manifest.model_id,
        version=report.manifest.version,
        roc=tuple(zip(found.roc.false_positive_rates, found.roc.sensitivities, strict=False)),
        precision_recall=tuple(zip(found.precision_recall.recalls, found.precision_recall.precisions, strict=False)),
        calibration=tuple(
            (
                each.mean_score,
                Interval(
                    value=each.observed.value,
                    low=each.observed.low,
                    high=each.observed.high,
                    resamples=each.observed.resamples,
                ),
            )
            for each in found.calibration
            if each.observed.kind == "measured"
        ),
    )
