"""Labs, vital signs and demographics by a vendor's web services, in place of the FHIR searches for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

import msgspec

from deployr_core.facts import Demographics, Lab, Vital
from deployr_core.features import EthnicityGroup, FeatureSpec, LabGroup, VitalGroup
from deployr_core.packet import FetchRecord, Subject
from deployr_serve.adapters import epic_facts as facts
from deployr_serve.adapters.epic_client import VendorClient, metered
from deployr_serve.adapters.epic_components import FlowsheetRow, VendorCodes
from deployr_serve.adapters.epic_results import ResultComponents
from deployr_serve.adapters.group_reads import GroupFacts
from deployr_serve.adapters.identity import FHIR, Encounters, VendorPatients
from deployr_serve.core.errors import EmrBadResponse, EmrIncomplete, UnknownContext, UnknownPatient
from deployr_serve.core.ports import Budget, TypedIdentifier

FLOWSHEET_PATH = "api/epic/2014/Clinical/Patient/GETFLOWSHEETROWS/FlowsheetRows"
DEMOGRAPHICS_2010_PATH = "api/epic/2010/Common/Patient/GETPATIENTDEMOGRAPHICS/Patient/Demographics"
DEMOGRAPHICS_2019_PATH = "api/epic/2019/PatientAccess/Patient/GetPatientDemographics/Patient/Demographics"
MOST_HOURS = 72
"""How far back flowsheets go. Source: a comment in a public client, wire formats document, section 2 [seen]."""
_STU3 = "FHIR STU3"
_EPI = "EPI"
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpicSite:
    """What one site's settings say about its vendor's reading services.

    ``names``: the groups that are read by them: ``labs``, ``vitals``, ``patient``. ``demographics_of_2019``: the newer
    of the two shapes. ``user_id`` and ``user_id_type``: in whose name is read.
    """

    names: frozenset[str]
    codes: VendorCodes
    zone: tzinfo
    user_id: str = field(repr=False)
    user_id_type: str
    demographics_of_2019: bool = False

    @property
    def user(self) -> Mapping[str, str]:
        """The members that name the user."""
        return {"UserID": self.user_id, "UserIDType": self.user_id_type}

    def unreadable(self, spec: FeatureSpec) -> tuple[str, ...]:
        """Name groups with a test that the site's file does not have, or a window that flowsheets do not reach.

        The window is reached only if it is shorter than 72 hours: the call comes after the instant that it looks back
        from.
        """
        return tuple(group.name for group in spec.groups if not self._can_read(group))

    def _can_read(self, group: object) -> bool:
        match group:
            case LabGroup() if "labs" in self.names:
                return self.codes.knows_all_of(group)
            case VitalGroup() if "vitals" in self.names:
                return self.codes.knows_all_of(group) and group.lookback_days * 24 < MOST_HOURS
            case EthnicityGroup() if "patient" in self.names:
                return self.demographics_of_2019
            case _:
                return True


class _FlowsheetRows(msgspec.Struct, frozen=True, rename="pascal"):
    flowsheet_rows: tuple[facts.FlowsheetRowAnswer, ...] | None


class EpicReads:
    """A `deployr_serve.adapters.group_reads.GroupReads`.

    What it gives is less than FHIR gives: a result is dated by when it came, to the minute unless the site shows
    instants, and names neither its order nor its reference range. Flowsheets are those of the request's encounter.
    """

    def __init__(
        self,
        client: VendorClient,
        *,
        site: EpicSite,
        patients: VendorPatients,
        encounters: Encounters,
    ) -> None:
        """``patients`` give the ids that are read by, ``encounters`` the contact that flowsheets are read by."""
        self.names = site.names
        self._client = client
        self._site = site
        self._patients = patients
        self._encounters = encounters
        self._results = ResultComponents(client, codes=site.codes, zone=site.zone, user=site.user)

    def unreadable(self, spec: FeatureSpec) -> tuple[str, ...]:
        """See `EpicSite.unreadable`."""
        return self._site.unreadable(spec)

    async def read(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None,
        dropped: Counter[str],
    ) -> GroupFacts:
        """See `GroupReads.read`. First the patient's identifiers are asked for, then all groups at once.

        Raises:
            WrongPatient: the identifiers that came are another patient's.
            UnknownContext: flowsheets without an encounter, or one without a contact serial number.
        """
        wanted = self._wanted(spec)
        if not wanted:
            return GroupFacts(facts={}, demographics=None, records=())
        with metered(resource="Identifiers", name="identity", clock=self._client.clock) as meter:
            asked = TypedIdentifier(type=FHIR, value=subject.patient_id)
            patient = await self._patients.resolve_metered((asked,), meter=meter, budget=budget)
            identified = meter.record(1)
        ids = {**patient.also, FHIR: subject.patient_id}
        try:
            async with asyncio.TaskGroup() as group:
                labs = vitals = who = None
                if "labs" in wanted:
                    labs = group.create_task(self._labs(ids, spec, as_of=as_of, budget=budget, dropped=dropped))
                if "vitals" in wanted:
                    vitals = group.create_task(
                        self._vitals(ids, subject, spec, as_of=as_of, budget=budget, dropped=dropped)
                    )
                if "patient" in wanted:
                    who = group.create_task(self._demographics(ids, budget=budget, dropped=dropped))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        found: dict[str, tuple[Lab, ...] | tuple[Vital, ...]] = {}
        records = [identified]
        if labs:
            found["labs"], record = labs.result()
            records.append(record)
        if vitals:
            found["vitals"], record = vitals.result()
            records.append(record)
        demographics = None
        if who:
            demographics, record = who.result()
            records.append(record)
        return GroupFacts(facts=found, demographics=demographics, records=tuple(records))

    def _wanted(self, spec: FeatureSpec) -> frozenset[str]:
        held = {"patient"}
        held |= {"labs" for group in spec.groups if isinstance(group, LabGroup)}
        held |= {"vitals" for group in spec.groups if isinstance(group, VitalGroup)}
        return self.names & held

    async def _labs(
        self,
        ids: Mapping[str, str],
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None,
        dropped: Counter[str],
    ) -> tuple[tuple[Lab, ...], FetchRecord]:
        days = max(group.lookback_days for group in spec.groups if isinstance(group, LabGroup))
        with metered(resource="ResultComponents", name="labs", clock=self._client.clock) as meter:
            results = await self._results.read(
                _patient(ids, _STU3),
                self._site.codes.components_for(spec),
                since=as_of - timedelta(days=days),
                meter=meter,
                budget=budget,
            )
            read = facts.labs(results, codes=self._site.codes, zone=self._site.zone, dropped=dropped)
            return read, meter.record(len(results))

    async def _vitals(
        self,
        ids: Mapping[str, str],
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None,
        dropped: Counter[str],
    ) -> tuple[tuple[Vital, ...], FetchRecord]:
        days = max(group.lookback_days for group in spec.groups if isinstance(group, VitalGroup))
        back_to = self._client.clock.now() - as_of + timedelta(days=days)
        hours = max(back_to // _HOUR, 0) + 1
        with metered(resource="FlowsheetRows", name="vitals", clock=self._client.clock) as meter:
            if back_to > MOST_HOURS * _HOUR:
                raise EmrIncomplete(f"expected to look back at most {MOST_HOURS} hours from now for flowsheets")
            if subject.encounter_id is None:
                raise UnknownContext("expected an encounter in the request: flowsheets are read by contact")
            contact = await self._encounters.csn_of(subject.encounter_id, patient_id=subject.patient_id, budget=budget)
            rows = self._site.codes.rows_for(spec)
            body = {
                **_patient(ids, _EPI),
                "ContactID": contact,
                "ContactIDType": "CSN",
                "LookbackHours": min(hours, MOST_HOURS),
                **self._site.user,
                "FlowsheetRowIDs": [{"ID": row.id, "Type": row.type} for row in rows],
            }
            answer = await self._client.post(FLOWSHEET_PATH, body, answer=_FlowsheetRows, meter=meter, budget=budget)
            named = _named_rows(answer.flowsheet_rows or (), rows)
            read = facts.vitals(named, codes=self._site.codes, zone=self._site.zone, dropped=dropped)
            return read, meter.record(sum(len(row.flowsheet_columns) for _, row in named))

    async def _demographics(
        self, ids: Mapping[str, str], *, budget: Budget | None, dropped: Counter[str]
    ) -> tuple[Demographics, FetchRecord]:
        codes = self._site.codes
        with metered(resource="Demographics", name="patient", clock=self._client.clock) as meter:
            if self._site.demographics_of_2019:
                newer = await self._client.get(
                    DEMOGRAPHICS_2019_PATH,
                    _patient(ids, FHIR),
                    answer=facts.Demographics2019,
                    meter=meter,
                    budget=budget,
                )
                return facts.demographics_of_2019(newer, codes=codes, dropped=dropped), meter.record(1)
            older = await self._client.get(
                DEMOGRAPHICS_2010_PATH, _patient(ids, _STU3), answer=facts.Demographics2010, meter=meter, budget=budget
            )
            return facts.demographics_of_2010(older, codes=codes, dropped=dropped), meter.record(1)


def _patient(ids: Mapping[str, str], id_type: str) -> dict[str, str]:
    if id_type not in ids:
        raise UnknownPatient(f"expected a patient with one {id_type} id")
    return {"PatientID": ids[id_type], "PatientIDType": id_type}


def _named_rows(
    answers: tuple[facts.FlowsheetRowAnswer, ...], rows: tuple[FlowsheetRow, ...]
) -> list[tuple[FlowsheetRow, facts.FlowsheetRowAnswer]]:
    by_id = {(row.type.upper(), row.id): row for row in rows}
    named = []
    for answer in answers:
        meant = [by_id[key] for one in answer.row_ids if (key := (one.type.upper(), str(one.id))) in by_id]
        if len(meant) != 1:
            raise EmrBadResponse("expected only flowsheet rows that were asked for")
        named.append((meant[0], answer))
    return named
