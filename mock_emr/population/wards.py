"""The wards of the hospital, and what draws patients to each."""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Ward:
    """One ward.

    Args:
        code: as the census names it.
        name: as the screen names it.
        care_site_id: OMOP's number of it.
        weight: how many patients of average severity lie there, relative to the other wards.
        loading: change of the logarithm of that weight per standard deviation of each latent axis.
    """

    code: str
    name: str
    care_site_id: int
    weight: float
    loading: dict[str, float] = field(default_factory=dict)


WARDS: Final = (
    Ward(code="ICU", name="Intensive care", care_site_id=1, weight=0.0),
    Ward(code="MED", name="Medicine 5 West", care_site_id=2, weight=0.40, loading={"inflammation": 0.2}),
    Ward(code="CARD", name="Cardiology 4 East", care_site_id=3, weight=0.20, loading={"cardiac": 0.8}),
    Ward(code="SURG", name="Surgery 6 North", care_site_id=4, weight=0.28, loading={"anemia": 0.3, "cardiac": -0.2}),
    Ward(code="NEPH", name="Nephrology 3 South", care_site_id=5, weight=0.12, loading={"renal": 0.9}),
)
