"""What an evaluation holds, as records that go to JSON and back unchanged."""

from __future__ import annotations

import msgspec

from deployr_core import bootstrap

SCHEMA_VERSION = 1


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Measured(_Record, frozen=True, kw_only=True, tag_field="kind", tag="measured"):
    """A figure with its 95 % interval; ``resamples`` is 0 where the interval is a closed form."""

    value: float
    low: float
    high: float
    resamples: int


class NotMeasured(_Record, frozen=True, kw_only=True, tag_field="kind", tag="not-measured"):
    """In a figure's place where the rows cannot carry it."""

    why: str


Figure = Measured | NotMeasured


class Given(_Record, frozen=True, kw_only=True, tag_field="kind", tag="given"):
    """The threshold was given."""


class AlertRateAtMost(_Record, frozen=True, kw_only=True, tag_field="kind", tag="alert-rate-at-most"):
    """The lowest threshold that alerts on at most this share of the rows."""

    share: float


class SensitivityAtLeast(_Record, frozen=True, kw_only=True, tag_field="kind", tag="sensitivity-at-least"):
    """The highest threshold that finds at least this share of the positive rows."""

    share: float


ThresholdChoice = Given | AlertRateAtMost | SensitivityAtLeast


class AtThreshold(_Record, frozen=True, kw_only=True, tag_field="kind", tag="at-threshold"):
    """What comes of alerting on every score of at least ``threshold``."""

    choice: ThresholdChoice
    threshold: float
    alert_rate: Figure
    sensitivity: Figure
    specificity: Figure
    ppv: Figure
    npv: Figure


class NoThreshold(_Record, frozen=True, kw_only=True, tag_field="kind", tag="no-threshold"):
    """No threshold does what was asked for."""

    choice: ThresholdChoice
    why: str


Threshold = AtThreshold | NoThreshold


class RocPoints(_Record, frozen=True, kw_only=True, tag_field="kind", tag="roc"):
    """From the highest threshold down to (1, 1); see `deployr_core.curves.RocCurve`."""

    thresholds: tuple[float, ...]
    false_positive_rates: tuple[float, ...]
    sensitivities: tuple[float, ...]


class PrecisionRecallPoints(_Record, frozen=True, kw_only=True, tag_field="kind", tag="precision-recall"):
    """From the highest threshold down; see `deployr_core.curves.PrecisionRecallCurve`."""

    thresholds: tuple[float, ...]
    recalls: tuple[float, ...]
    precisions: tuple[float, ...]


class CalibrationPoint(_Record, frozen=True, kw_only=True):
    """Rows of neighbouring scores, both ends included: what was said on average, and what happened."""

    lowest: float
    highest: float
    rows: int
    mean_score: float
    observed: Figure


class ScoreHistogram(_Record, frozen=True, kw_only=True):
    """How many rows with and without the outcome scored in each of equally wide bins from 0 to 1, the top included."""

    with_outcome: tuple[int, ...]
    without_outcome: tuple[int, ...]


class GroupFigures(_Record, frozen=True, kw_only=True, tag_field="kind", tag="figures"):
    """How the model does in a group. ``sensitivity`` is at the operating threshold of everybody."""

    prevalence: Figure
    auroc: Figure
    calibration_in_the_large: Figure
    sensitivity: Figure


class TooSmall(_Record, frozen=True, kw_only=True, tag_field="kind", tag="too-small"):
    """A group that no figure is given for: it would be noise, and could tell of a person."""

    why: str


class Group(_Record, frozen=True, kw_only=True):
    """Some of the rows: those of one sex, say."""

    name: str
    rows: int
    patients: int
    figures: GroupFigures | TooSmall


class Grouping(_Record, frozen=True, kw_only=True):
    """All rows in groups, by one property: ``sex``, ``age``."""

    name: str
    groups: tuple[Group, ...]


class AvailabilityFifth(_Record, frozen=True, kw_only=True):
    """About a fifth of the rows, of which from ``fewest`` to ``most`` features were available."""

    fewest: int
    most: int
    rows: int
    patients: int
    auroc: Measured | NotMeasured | TooSmall


class Evaluation(_Record, frozen=True, kw_only=True):
    """How scores did against outcomes. Every interval resamples patients, ``resamples`` times.

    ``operating`` is the threshold that the groups' sensitivity is at. ``scores_at_limit`` counts the scores so near
    to 0 or 1 that they were moved for the calibration slope (`deployr_core.calibration.SCORE_LIMIT`).
    """

    schema_version: int = SCHEMA_VERSION
    rows: int
    patients: int
    positives: int
    resamples: int
    scores_at_limit: int
    prevalence: Figure
    auroc: Figure
    average_precision: Figure
    brier_score: Figure
    log_loss: Figure
    mean_score: Figure
    calibration_in_the_large: Figure
    calibration_slope: Figure
    calibration_intercept: Figure
    operating: Threshold
    thresholds: tuple[Threshold, ...]
    roc: RocPoints | NotMeasured
    precision_recall: PrecisionRecallPoints | NotMeasured
    calibration: tuple[CalibrationPoint, ...]
    histogram: ScoreHistogram
    groupings: tuple[Grouping, ...]
    by_available_features: tuple[AvailabilityFifth, ...]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")


def recorded(figure: bootstrap.Figure) -> Figure:
    """Give a figure of the core's as a record."""
    match figure:
        case bootstrap.Interval():
            return Measured(value=figure.value, low=figure.low, high=figure.high, resamples=figure.resamples)
        case bootstrap.NotMeasured(why=why):
            return NotMeasured(why=why)
