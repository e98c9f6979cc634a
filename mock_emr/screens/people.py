"""Who a patient is, on a screen: a name where one may be shown, the id always."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from mock_emr.dates import DateError, interval_of
from mock_emr.elements import each, identifiers
from mock_emr.emr import Emr
from mock_emr.population.codes import PERSON_SYSTEM

_FAMILY = (
    "Abara Adler Alvarez Bakker Banerjee Barros Bellamy Berg Castellan Chandra Cole Dahl Demir Duarte Eklund Ferro "
    "Fontaine Gallo Greer Haddad Hale Holm Ibarra Iwata Jansen Kaplan Keane Kovac Lindqvist Lowe Marchetti Mbeki "
    "Mercer Moreau Nakano Novak Okafor Osei Park Petrov Quist Ramos Reyes Rossi Sato Silva Sorensen Tanaka Tran "
    "Usman Varga Vance Wallin Weaver Xu Yilmaz Zeller Zhou"
)
_GIVEN = {
    "female": "Ada Bea Clara Dina Elif Farah Greta Hana Ines Joan Kira Lena Mina Nora Olga Priya Rosa Sana Tess Vera",
    "male": "Aron Ben Carlo Dev Emil Felix Goran Hugo Ivan Jonas Karim Leo Milan Noel Omar Pavel Ravi Sven Tomas",
}


@dataclass(frozen=True, kw_only=True)
class Person:
    """A patient as a heading shows them. ``name`` is None where the data has none; ``age`` is in whole years."""

    patient_id: str = field(repr=False)
    name: str | None = field(repr=False)
    sex: str
    born: str = field(repr=False)
    age: int | None
    has_died: bool

    @property
    def title(self) -> str:
        """Give what the patient is called: the name, else the id."""
        return self.name or self.patient_id


def person_of(emr: Emr, patient_id: str) -> Person | None:
    """Give the patient as of now; None where the EMR shows no such."""
    now = emr.clock.now()
    form = emr.store.read("Patient", patient_id, now=now)
    return None if form is None else person_in(msgspec.json.decode(form.body), now=now)


def person_in(patient: Mapping[str, Any], *, now: datetime) -> Person:
    """Read a Patient resource."""
    born = str(patient.get("birthDate", ""))
    return Person(
        patient_id=str(patient["id"]),
        name=name_of(patient),
        sex=str(patient.get("gender", "")),
        born=born,
        age=_age(born, now),
        has_died="deceasedDateTime" in patient or patient.get("deceasedBoolean") is True,
    )


def name_of(patient: Mapping[str, Any]) -> str | None:
    """Give the name that the resource has, or a made-up one, always the same, for a patient of the generator's.

    A patient of other data who has no name there gets none: a made-up name could be taken for that person's own.
    """
    for name in each(patient.get("name")):
        given = name.get("given")
        parts = [*(given if isinstance(given, list) else ()), name.get("family")]
        if words := " ".join(str(part) for part in parts if part):
            return words
    if any(system == PERSON_SYSTEM for system, _ in identifiers(patient.get("identifier"))):
        drawn = hashlib.sha256(f"name:{patient['id']}".encode()).digest()
        family_names = _FAMILY.split()
        given_names = _GIVEN.get(str(patient.get("gender")), _GIVEN["female"]).split()
        return f"{given_names[drawn[0] % len(given_names)]} {family_names[drawn[1] % len(family_names)]}"
    return None


def _age(born: str, now: datetime) -> int | None:
    try:
        birth = interval_of(born).low
    except DateError:
        return None
    return now.year - birth.year - ((now.month, now.day) < (birth.month, birth.day))
