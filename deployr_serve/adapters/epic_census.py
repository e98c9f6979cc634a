"""Who lies in a unit, and where a patient lies, by the vendor's web services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from deployr_core.packet import FetchRecord
from deployr_serve.adapters.epic_client import VendorClient, metered
from deployr_serve.adapters.epic_facts import TypedId
from deployr_serve.core.ports import Budget

CENSUS_PATH = "api/epic/2012/Access/Patient/GETCENSUSBYUNIT/UnitCensus"
LOCATION_PATH = "api/epic/2012/Access/Patient/GETPATIENTLOCATION/Location"


@dataclass(frozen=True, kw_only=True, slots=True)
class BeddedPatient:
    """One patient in a bed, by ids of each type, and the contact serial number of the stay. No name is kept."""

    ids: Mapping[str, str] = field(repr=False)
    csn: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """The patients of a unit, each once; ``dropped`` counts, by reason, those who cannot be told apart or asked about.

    The reasons: ``census.repeated``, the same ids again; ``census.no_usable_ids``, no id or not one CSN;
    ``census.conflicting_ids``, ids that another patient of the unit has too, so that neither is taken.
    """

    patients: tuple[BeddedPatient, ...] = field(repr=False)
    dropped: Mapping[str, int]
    record: FetchRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class PatientLocation:
    """Where a patient lies; ``unit_id`` is None for somebody who lies nowhere."""

    unit_id: str | None = field(repr=False)


class _Bedded(msgspec.Struct, frozen=True):
    """Names, birth dates and beds are left where they are."""

    patient_ids: tuple[TypedId, ...] = msgspec.field(name="PatientIDs")
    contact_ids: tuple[TypedId, ...] = msgspec.field(name="ContactIDs")

    def __repr__(self) -> str:
        return "<_Bedded>"


class _UnitCensus(msgspec.Struct, frozen=True, rename="pascal"):
    bedded_patients: tuple[_Bedded, ...]


class _Location(msgspec.Struct, frozen=True):
    unit_id: str | None = msgspec.field(name="UnitID")


class EpicCensus:
    """Reads the census of one site.

    Source: GETCENSUSBYUNIT, wire formats document, section 2 [seen]. GETPATIENTLOCATION: request [seen], answer
    [assumed]: nobody publishes it, so that a site has to look at ``_Location`` before it relies on it.
    """

    def __init__(self, client: VendorClient, *, user: Mapping[str, str]) -> None:
        """``user`` holds UserID and UserIDType, in whose name is read."""
        self._client = client
        self._user = user

    async def unit(self, unit_id: str, *, budget: Budget | None) -> Census:
        """Give who lies in a unit now; nobody is an answer, which the caller has to find plausible or not.

        Raises:
            EmrBadResponse: no list of patients, or an error in a successful answer.
            ServeError: as `VendorClient.get` raises.
        """
        with metered(resource="UnitCensus", name="census", clock=self._client.clock) as meter:
            answer = await self._client.get(
                CENSUS_PATH, {"UnitID": unit_id}, answer=_UnitCensus, meter=meter, budget=budget
            )
            dropped: Counter[str] = Counter()
            patients = _told_apart(answer.bedded_patients, dropped)
            return Census(patients=patients, dropped=dict(dropped), record=meter.record(len(answer.bedded_patients)))

    async def location(self, patient: Mapping[str, str], *, budget: Budget | None) -> PatientLocation:
        """Give where a patient lies; ``patient`` holds PatientID and PatientIDType.

        Raises:
            UnknownPatient: the vendor knows no such patient.
            ServeError: as `VendorClient.post` raises.
        """
        with metered(resource="Location", name="location", clock=self._client.clock) as meter:
            body = {**patient, **self._user}
            answer = await self._client.post(LOCATION_PATH, body, answer=_Location, meter=meter, budget=budget)
            return PatientLocation(unit_id=answer.unit_id)


def _told_apart(bedded: tuple[_Bedded, ...], dropped: Counter[str]) -> tuple[BeddedPatient, ...]:
    """Give each patient once. One id that two patients have makes both of them nobody: either may be the other."""
    found: dict[tuple[tuple[str, str], ...], BeddedPatient] = {}
    for one in bedded:
        ids = _by_type(one.patient_ids)
        csns = {str(contact.id) for contact in one.contact_ids if contact.type == "CSN" and str(contact.id)}
        if not ids or len(csns) != 1:
            dropped["census.no_usable_ids"] += 1
            continue
        patient = BeddedPatient(ids=ids, csn=csns.pop())
        key = (*sorted(ids.items()), ("CSN", patient.csn))
        if key in found:
            dropped["census.repeated"] += 1
        found[key] = patient
    holders = Counter(identifier for key in found for identifier in key)
    kept = tuple(patient for key, patient in found.items() if all(holders[identifier] == 1 for identifier in key))
    if len(kept) < len(found):
        dropped["census.conflicting_ids"] += len(found) - len(kept)
    return kept


def _by_type(ids: tuple[TypedId, ...]) -> dict[str, str]:
    """Give the id of each type; empty where a type has two, for then it is not known who is meant."""
    found: dict[str, str] = {}
    for one in ids:
        value = str(one.id).strip()
        if not one.type or not value:
            continue
        if found.setdefault(one.type, value) != value:
            return {}
    return found
