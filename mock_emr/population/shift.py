"""Infrastructure shift: how the two tellings of one hospital come apart, and what changes in it, as declared knobs.

All are off by default. The extract is what a model is trained on, FHIR what it is served with: what differs between
them is what the model meets in service and never in training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from mock_emr.population.wards import WARDS

Side = Literal["omop", "fhir"]

OTHER_UNITS: Final = {
    "Hemoglobin": ("g/L", 10.0, 0),
    "Albumin": ("g/L", 10.0, 0),
    "Creatinine": ("umol/L", 88.42, 0),
    "Urea nitrogen": ("mmol/L", 0.35697, 1),
    "Glucose": ("mmol/L", 0.05551, 1),
    "Calcium": ("mmol/L", 0.24951, 2),
    "Magnesium": ("mmol/L", 0.41143, 2),
}
"""Name of an analyte to its unit elsewhere in the world, the factor to it, and the digits after the point there.

Source: molar masses 113.12 (creatinine), 28.013 (both nitrogens of urea), 180.16 (glucose), 40.078 and 24.305 g/mol.
"""

DROPPABLE: Final = (
    "Patient.birthDate",
    "Patient.extension",
    "Condition.recordedDate",
    "Condition.code",
    "MedicationRequest.medicationCodeableConcept",
    "MedicationRequest.encounter",
    "Observation.encounter",
    "Observation.interpretation",
    "Observation.issued",
    "Observation.referenceRange",
    "Observation.valueQuantity",
)
"""Elements that may be missing over FHIR. ``Patient.extension`` holds race and ethnicity."""


@dataclass(frozen=True, kw_only=True)
class InfrastructureShift:
    """What differs between the tellings, or from some week on.

    Weeks are counted from the period's start, 0 the first; -1 is its last, as in an index.

    Args:
        unmapped_diagnoses: share of diagnoses whose code one side does not map, in [0, 1].
        unmapped_drugs: the same of drugs.
        unmapped_analytes: the same of laboratory components; what is asked for is then not found either.
        unmapped_side: the side that has a local code instead.
        other_units: names of analytes, of those in `OTHER_UNITS`, that one side gives in another unit.
        units_side: that side.
        units_labelled: whether it says so; if not, numbers in the other unit carry the label of the usual one.
        late_share: share of results that come over FHIR later than the laboratory released them, in [0, 1].
        late_hours: how late on average, at least 0; half as much at least, half as much again at most.
        missing_elements: of `DROPPABLE`, those that are missing over FHIR in some resources.
        missing_share: the share of resources that miss each of them, in [0, 1].
        analyser_ward: code of the ward, of `wards.WARDS`, whose analyser changes; empty for none.
        analyser_from_week: the week from which draws on that ward go through the new one.
        analyser_factor: what the interface of the new analyser multiplies chemistry results with, over FHIR; the
            warehouse corrects them. More than 0.
        drift_from_week: the week from which admissions drift.
        drift_severity: how much more ill those are on every latent axis, in population standard deviations. Both
            tellings say so alike: it is the case mix that drifts, not the record.
        drift_stay_factor: what the length of those admissions is multiplied with, more than 0: below 1 the ward sees
            more people of whom little is known yet. Both tellings say so alike.

    Raises:
        ValueError: a value outside what is said above.
    """

    unmapped_diagnoses: float = 0.0
    unmapped_drugs: float = 0.0
    unmapped_analytes: float = 0.0
    unmapped_side: Side = "fhir"
    other_units: tuple[str, ...] = ()
    units_side: Side = "fhir"
    units_labelled: bool = True
    late_share: float = 0.0
    late_hours: float = 6.0
    missing_elements: tuple[str, ...] = ()
    missing_share: float = 0.5
    analyser_ward: str = ""
    analyser_from_week: int = 0
    analyser_factor: float = 1.1
    drift_from_week: int = 0
    drift_severity: float = 0.0
    drift_stay_factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no knob could be set to."""
        for name in ("unmapped_diagnoses", "unmapped_drugs", "unmapped_analytes", "late_share", "missing_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("unmapped_side", "units_side"):
            if getattr(self, name) not in ("omop", "fhir"):
                raise ValueError(f"{name} must be omop or fhir")
        if self.late_hours < 0:
            raise ValueError(f"late_hours must be 0 or more, got {self.late_hours}")
        for name in ("analyser_factor", "drift_stay_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        wards = [ward.code for ward in WARDS]
        if self.analyser_ward and self.analyser_ward not in wards:
            raise ValueError(f"analyser_ward must be one of {', '.join(wards)}")
        if not set(self.other_units) <= set(OTHER_UNITS):
            raise ValueError(f"other_units must be of {', '.join(OTHER_UNITS)}")
        unknown = sorted(set(self.missing_elements) - set(DROPPABLE))
        if unknown:
            raise ValueError(f"missing_elements: {', '.join(unknown)} cannot be missing; choose of {DROPPABLE}")


NO_SHIFT: Final = InfrastructureShift()

SHIFTED: Final = InfrastructureShift(
    unmapped_diagnoses=0.4,
    unmapped_drugs=0.4,
    other_units=("Hemoglobin", "Creatinine", "Glucose"),
    late_share=0.7,
    late_hours=24.0,
    missing_elements=("Patient.extension", "Condition.recordedDate", "MedicationRequest.medicationCodeableConcept"),
    missing_share=0.6,
    analyser_ward="MED",
    analyser_from_week=-5,
    analyser_factor=1.08,
    drift_from_week=-5,
    drift_severity=0.2,
    drift_stay_factor=0.6,
)
"""Several things at once, all sizes assumed. Most results reach the server behind the FHIR interface by a load at
night, and from some week on beds are short: admissions are more ill, and go home sooner. What changes in time does so
for the last five weeks, as long as the prospective part of a silent trial."""


def read_shift(file: Path) -> InfrastructureShift:
    """Read the knobs from a YAML file that names some or all of them; what it does not name is off.

    Raises:
        ValueError: it is no such file; the message names the knob or the place.
        OSError: it cannot be read.
    """
    try:
        held = msgspec.yaml.decode(file.read_bytes())
        return shift_of(held or {})
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{file}: {error}") from error


def shift_of(knobs: object) -> InfrastructureShift:
    """Make the knobs of plain data, as YAML or a command line give them.

    Raises:
        ValueError: an unknown name, or a value that its knob cannot be set to.
    """
    names = set(InfrastructureShift.__dataclass_fields__)
    if not isinstance(knobs, dict) or not set(knobs) <= names:
        raise ValueError(f"expected knobs of {', '.join(sorted(names))}")
    try:
        return msgspec.convert(knobs, InfrastructureShift, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"infrastructure shift: {error}") from error
