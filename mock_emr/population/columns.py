"""What a population is: columns of equal length, one dataclass per kind of fact, instants in UTC.

A ``*_row`` column is a 0-based index into another table's columns (or into a catalogue tuple); an ``*_id``
column holds the number that both writers show. Nothing here is mutable by convention: writers only read.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mock_emr.population.config import PopulationConfig

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Instants = NDArray[np.datetime64]
Integers = NDArray[np.int64]

RESULT_FINAL, RESULT_CORRECTED, RESULT_AMENDED = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """Columns of one length; a table with ragged columns is refused when made."""

    def __post_init__(self) -> None:
        """Raise ValueError when the columns differ in length."""
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns must have one length, got {lengths}")

    def __len__(self) -> int:
        """Count the rows."""
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True, kw_only=True, eq=False)
class Persons(_Table):
    """The patients.

    Args:
        person_id: 1, 2, 3 ...
        birth_date: full dates, unit day.
        sex_row: into `codes.SEXES`.
        race_row: into `codes.RACES`.
        ethnicity_row: into `codes.ETHNICITIES`.
        illness: persistent severity on each latent axis, shape (n_persons, n_axes), in population
            standard deviations, 0 an average inpatient. The simulator's truth: no writer shows it.
    """

    person_id: Integers
    birth_date: Instants
    sex_row: Integers
    race_row: Integers
    ethnicity_row: Integers
    illness: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Stays(_Table):
    """Inpatient stays, in order of admission; those of one patient never overlap.

    Args:
        visit_id: 500001, 500002 ...
        csn: the contact serial number, another number than ``visit_id``.
        person_row: into `Persons`.
        start: admission.
        end: discharge, or the end of the period for a stay that was still open.
        preceding_row: the same patient's stay before this one, or -1.
        died: whether it ended in death.
    """

    visit_id: Integers
    csn: Integers
    person_row: Integers
    start: Instants
    end: Instants
    preceding_row: Integers
    died: Flags


@dataclass(frozen=True, kw_only=True, eq=False)
class Moves(_Table):
    """Where patients lay, by stay and then by time; those of one stay abut and fill it.

    Args:
        move_id: 1, 2, 3 ...
        stay_row: into `Stays`.
        ward_row: into `wards.WARDS`.
        start: when the patient came to the ward, included.
        end: when the patient left it, excluded.
    """

    move_id: Integers
    stay_row: Integers
    ward_row: Integers
    start: Instants
    end: Instants


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions(_Table):
    """Diagnoses as charted.

    Args:
        condition_id: 1, 2, 3 ... in order of recording.
        person_row: into `Persons`.
        stay_row: into `Stays`; -1 for a problem-list item, which belongs to no stay.
        diagnosis_row: into `diagnoses.DIAGNOSES`.
        recorded: when it was charted.
    """

    condition_id: Integers
    person_row: Integers
    stay_row: Integers
    diagnosis_row: Integers
    recorded: Instants


@dataclass(frozen=True, kw_only=True, eq=False)
class Medications(_Table):
    """Medication orders.

    Args:
        medication_id: 1, 2, 3 ... in order of ordering.
        stay_row: into `Stays`.
        drug_row: into `drugs.DRUGS`.
        ordered: when it was signed.
        ended: when the course ended, never after discharge.
        stopped: the course was cut short by the end of the stay.
    """

    medication_id: Integers
    stay_row: Integers
    drug_row: Integers
    ordered: Instants
    ended: Instants
    stopped: Flags


@dataclass(frozen=True, kw_only=True, eq=False)
class LabOrders(_Table):
    """Laboratory orders: ``ordered`` < ``collected`` < ``resulted``.

    Args:
        order_id: 100001, 100002 ... in order of ordering.
        stay_row: into `Stays`.
        panel_row: into `labs.PANELS`.
        ordered: when it was signed.
        collected: when the specimen was drawn, whole minutes; not-a-time for a cancelled order.
        resulted: when the laboratory released it; not-a-time for a cancelled order.
    """

    order_id: Integers
    stay_row: Integers
    panel_row: Integers
    ordered: Instants
    collected: Instants
    resulted: Instants

    @property
    def cancelled(self) -> Flags:
        """Which orders never got a specimen."""
        return np.isnat(self.resulted)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabResults(_Table):
    """One component of one resulted order.

    Args:
        result_id: 1000001, 1000002 ... by order, then by the panel's order of components.
        order_row: into `LabOrders`.
        analyte_row: into `labs.ANALYTES`.
        value: in the analyte's unit, rounded as the laboratory reports it.
        low: lower end of the normal range, included; NaN when the result came without one.
        high: upper end, included; NaN likewise.
        status: `RESULT_FINAL`, `RESULT_CORRECTED` or `RESULT_AMENDED`.
    """

    result_id: Integers
    order_row: Integers
    analyte_row: Integers
    value: Floats
    low: Floats
    high: Floats
    status: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """One hospital's patients and everything that was charted for them in the period."""

    config: PopulationConfig
    persons: Persons
    stays: Stays
    moves: Moves
    conditions: Conditions
    medications: Medications
    orders: LabOrders
    results: LabResults
