"""What the paper found, as far as it could be seen.

Source: Corbin et al. (2023), DEPLOYR, J. Am. Med. Inform. Assoc. 30:1532-1542, doi:10.1093/jamia/ocad114; preprint
arXiv:2303.06269. Table 2 and the numbers of patients of table 1 were seen in a transcription of the preprint by a third
party, not in the paper itself [secondary]. Not seen, and so left blank: the ages, sexes and races of table 1, how
many orders there were, and how often each result was abnormal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CITATION = "Corbin et al. 2023, doi:10.1093/jamia/ocad114"


@dataclass(frozen=True, kw_only=True, slots=True)
class Auroc:
    """An AUROC with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model in table 2."""

    retrospective: Auroc
    prospective: Auroc


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """How many patients a diagnostic's orders were of, from table 1."""

    retrospective: int
    prospective: int


def _row(*figures: float) -> Row:
    before, after = figures[:3], figures[3:]
    return Row(
        retrospective=Auroc(value=before[0], low=before[1], high=before[2]),
        prospective=Auroc(value=after[0], low=after[1], high=after[2]),
    )


TABLE_2: Mapping[str, Row] = MappingProxyType(
    {
        "hematocrit": _row(0.86, 0.85, 0.88, 0.83, 0.83, 0.84),
        "hemoglobin": _row(0.88, 0.86, 0.89, 0.83, 0.83, 0.84),
        "platelets": _row(0.79, 0.77, 0.82, 0.77, 0.76, 0.78),
        "wbc": _row(0.76, 0.74, 0.79, 0.69, 0.68, 0.70),
        "albumin": _row(0.88, 0.86, 0.91, 0.85, 0.84, 0.86),
        "bun": _row(0.85, 0.83, 0.87, 0.80, 0.79, 0.81),
        "calcium": _row(0.80, 0.76, 0.83, 0.79, 0.78, 0.81),
        "co2": _row(0.69, 0.66, 0.72, 0.62, 0.61, 0.63),
        "creatinine": _row(0.78, 0.75, 0.80, 0.75, 0.74, 0.76),
        "potassium": _row(0.67, 0.61, 0.72, 0.60, 0.59, 0.62),
        "sodium": _row(0.79, 0.75, 0.82, 0.71, 0.70, 0.72),
        "magnesium": _row(0.70, 0.67, 0.73, 0.65, 0.63, 0.67),
    }
)
"""By task: retrospective, then prospective."""

TABLE_1: Mapping[str, Cohort] = MappingProxyType(
    {
        "cbc": Cohort(retrospective=13_362, prospective=18_982),
        "metabolic": Cohort(retrospective=13_410, prospective=16_441),
        "mg": Cohort(retrospective=11_771, prospective=5_234),
    }
)
"""By what was ordered, as `deployr_cli.trial.models.GROUPS` calls it."""
