"""Whom a vendor's write interface is told of, and the check that a rendered write is about nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from deployr_serve.core.errors import WrongPatient


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorTarget:
    """The patient by the type of identifier that the interface takes, and the contact where the write is about one."""

    patient_id: str = field(repr=False)
    patient_id_type: str
    csn: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorUser:
    """In whose name the interface writes."""

    id: str = field(repr=False)
    type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorWrite:
    """One write, ready to be sent: query parameters and a JSON body, either of which may name the patient."""

    method: str
    path: str
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"{}", repr=False)


def insist_on(target: VendorTarget, *, patient_ids: Iterable[object], contact_ids: Iterable[object]) -> None:
    """Return if what was rendered names this patient, and this contact or none.

    Raises:
        WrongPatient: it names somebody else, or nobody.
    """
    if set(patient_ids) != {target.patient_id} or not set(contact_ids) <= {target.csn}:
        raise WrongPatient("expected a write about the patient and the contact that were scored")
