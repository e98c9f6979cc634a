"""Does a task pick its rows by what is known at the index time? One that does not is refused, with the reason.

A cohort that is picked by its future (orders that got a result, stays that turned out long) cannot be met in the
clinic: the model is then asked about patients whom it was never trained or measured on. The paper calls it faulty
cohort design.
"""

from __future__ import annotations

from deployr_core.label_rules import (
    FhirPathRule,
    IcuTransfer,
    InHospitalMortality,
    LabelRule,
    LabRule,
    LengthOfStay,
    LongStay,
    Readmission,
)
from deployr_dev.cohorts.rules import AfterAdmission, Discharge, Inclusion, IndexTime, OrderSigned, Unit


class FaultyCohort(ValueError):
    """The rows would be picked, or the label decided, by something that is not what it says at the index time."""


def check_observable(unit: Unit, index_time: IndexTime, inclusion: Inclusion, label: LabelRule) -> None:
    """Check that unit, index time, inclusion and label fit, and that nothing is used before it can be known.

    Where the label is a FHIRPath expression, it goes with either unit.

    Raises:
        FaultyCohort: they do not; the message names the key, what is wrong and what to do.
    """
    _check_fit(unit, index_time, inclusion, label)
    _check_order(unit, inclusion)
    _check_stay(index_time, inclusion)
    _check_label(index_time, label)


def _check_fit(unit: Unit, index_time: IndexTime, inclusion: Inclusion, label: LabelRule) -> None:
    of_order = isinstance(index_time, OrderSigned)
    if of_order != (unit is Unit.ORDER):
        raise FaultyCohort(
            "index_time: expected order-signed for the unit order, and after-admission or discharge for the unit visit"
        )
    if not isinstance(label, FhirPathRule) and isinstance(label, LabRule) != (unit is Unit.ORDER):
        raise FaultyCohort(
            "label: expected lab-component or lab-panel for the unit order; the other labels are about the unit visit"
        )
    if bool(inclusion.panels) != (unit is Unit.ORDER):
        raise FaultyCohort("inclusion.panels: expected the panels of the orders for the unit order, and for it alone")


def _check_order(unit: Unit, inclusion: Inclusion) -> None:
    if inclusion.has_result:
        raise FaultyCohort(
            "inclusion.has_result: faulty cohort design: whether there will be a result is not known at the index "
            "time. Leave it out: orders without a result are predicted too, and left out only where a label is needed"
        )
    if unit is Unit.ORDER and inclusion.discharged_alive:
        raise FaultyCohort(
            "inclusion.discharged_alive: faulty cohort design: how the visit ends is not known when the order is "
            "signed. Leave it out"
        )


def _check_stay(index_time: IndexTime, inclusion: Inclusion) -> None:
    if isinstance(index_time, Discharge):
        return
    so_far = index_time.hours if isinstance(index_time, AfterAdmission) else 0
    if inclusion.maximum_stay_hours is not None:
        raise FaultyCohort(
            f"inclusion.maximum_stay_hours: faulty cohort design: how long the visit lasts is only known at discharge, "
            f"and the index time is {index_time}. Leave it out, or predict at discharge"
        )
    if inclusion.minimum_stay_hours is not None and inclusion.minimum_stay_hours > so_far:
        raise FaultyCohort(
            f"inclusion.minimum_stay_hours: faulty cohort design: {index_time} nobody knows whether the visit will "
            f"last {inclusion.minimum_stay_hours} hours. Expected at most {so_far} hours, or a later index time"
        )
    if inclusion.discharged_alive:
        raise FaultyCohort(
            f"inclusion.discharged_alive: faulty cohort design: {index_time} nobody knows how the visit will end. "
            "Leave it out, or predict at discharge"
        )


def _check_label(index_time: IndexTime, label: LabelRule) -> None:
    at_discharge = isinstance(index_time, Discharge)
    match label:
        case LongStay(days=days) if isinstance(index_time, AfterAdmission) and index_time.hours >= days * 24:
            raise FaultyCohort(
                f"label.days: faulty cohort design: {index_time} a stay of {days} days is already a fact. "
                "Expected more days, or an earlier index time"
            )
        case LongStay() | LengthOfStay() | InHospitalMortality() | IcuTransfer() if at_discharge:
            raise FaultyCohort(
                "label: faulty cohort design: at discharge the outcome of the visit is already a fact. "
                "Expected the index time after-admission"
            )
        case Readmission() if not at_discharge:
            raise FaultyCohort(
                "index_time: expected discharge, from which on a readmission is counted; before it nobody knows "
                "whether and when the patient will leave"
            )
        case _:
            pass
