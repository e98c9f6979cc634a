"""The bars of the go / no-go checklist, each with its reason: ours, and what a site puts in their place.

They are the site's, not the model config's: whoever trains a model must not set the bar that it has to clear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from deployr_core.strict_yaml import parse_yaml

SCHEMA_VERSION = 1


class Bar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that a figure is held against, and why it is that one."""

    bar: float
    because: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.bar) or self.bar < 0:
            raise ValueError("expected a bar of at least 0")
        if not self.because.strip():
            raise ValueError("expected the reason of a bar")


def _bar(bar: float, because: str) -> Bar:
    return Bar(bar=bar, because=because)


DEFAULTS: Mapping[str, Bar] = {
    "parity_orders": _bar(30, "fewer orders hardly show the rarer codes"),
    "parity_share": _bar(0.99, "what training and service see differently, no later figure explains"),
    "days": _bar(28, "every day of the week four times"),
    "patients": _bar(100, "intervals that resample patients are too narrow with few"),
    "positives": _bar(100, "fewer events leave calibration and AUROC too uncertain (Vergouwe et al. 2005)"),
    "negatives": _bar(100, "as for events"),
    "auroc": _bar(0.7, "under it a ranking is of little use; set your own from what the decision needs"),
    "calibration_in_the_large": _bar(0.05, "a threshold that is off by five points means other patients"),
    "calibration_slope_low": _bar(0.7, "lower: scores are too extreme, as of an overfitted model"),
    "calibration_slope_high": _bar(1.3, "higher: scores are too timid"),
    "gap": _bar(0.1, "the most by which any group's AUROC may lie under everybody's"),
    "coverage": _bar(0.95, "who gets no score is not missing at random"),
    "labelled": _bar(0.95, "outcomes that were not read yet may be the bad ones"),
    "latency_ms": _bar(5_000, "whoever waits longer stops waiting"),
}
"""Source of the events: Y. Vergouwe et al. (2005), J Clin Epidemiol 58:475-483, doi:10.1016/j.jclinepi.2004.06.017."""

_SHARES = frozenset({"parity_share", "auroc", "calibration_in_the_large", "gap", "coverage", "labelled"})


class Bars(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site's file: ``every_model`` goes before ours, and ``models`` before that, for one model each.

    Raises:
        ValueError: a bar that there is not, a share above 1, or a slope's lower bar above its upper one.
    """

    schema_version: int
    every_model: Mapping[str, Bar] = {}
    models: Mapping[str, Mapping[str, Bar]] = {}

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        for bars in (self.every_model, *self.models.values()):
            if unknown := sorted(set(bars) - set(DEFAULTS)):
                raise ValueError(f"expected bars of {', '.join(DEFAULTS)}, got {', '.join(unknown)}")
            if above := sorted(name for name in _SHARES & set(bars) if bars[name].bar > 1):
                raise ValueError(f"expected a share from 0 to 1 in {', '.join(above)}")
        for model in (*self.models, ""):
            of_model = self.of(model)
            if of_model["calibration_slope_low"].bar > of_model["calibration_slope_high"].bar:
                raise ValueError("expected calibration_slope_low not to be above calibration_slope_high")

    def of(self, model_id: str) -> Mapping[str, Bar]:
        """Give a model's bars, all of them."""
        return {**DEFAULTS, **self.every_model, **self.models.get(model_id, {})}


OURS = Bars(schema_version=SCHEMA_VERSION)


def parse_bars(content: bytes) -> Bars:
    """Read a site's file.

    Raises:
        YamlInvalid: not of that shape; the message names the key.
    """
    return parse_yaml(content, Bars)
