"""Worklists from the EMR: the census of units, and encounters in progress at locations."""

from __future__ import annotations

from collections import Counter

from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.epic_census import EpicCensus
from deployr_serve.adapters.fhir_search import FhirClient, Search
from deployr_serve.core.batch import CSN, FHIR, EncounterSearch, Listed, Roster, UnitCensus
from deployr_serve.core.ports import Budget


class CensusWorklist:
    """A `Worklist` of who lies in some units."""

    def __init__(self, census: EpicCensus, declared: UnitCensus) -> None:
        self._census = census
        self._declared = declared

    async def read(self, *, budget: Budget) -> Roster:
        """See `Worklist`; one unit that cannot be read is no worklist."""
        rows: list[Listed] = []
        dropped: Counter[str] = Counter()
        id_type = self._declared.patient_id_type
        for unit_id in self._declared.units:
            unit = await self._census.unit(unit_id, budget=budget)
            dropped.update(unit.dropped)
            for bedded in unit.patients:
                if id_type in bedded.ids:
                    rows.append(Listed(patient=(id_type, bedded.ids[id_type]), encounter=(CSN, bedded.csn)))
                else:
                    dropped["no-usable-ids"] += 1
        return Roster(rows=tuple(rows), dropped=dict(dropped))


class EncounterWorklist:
    """A `Worklist` of who has an encounter in progress at some locations.

    Source: FHIR R4 encounter.html#search, http://hl7.org/fhir/R4/encounter.html [seen].
    """

    def __init__(self, client: FhirClient, declared: EncounterSearch) -> None:
        self._client = client
        self._declared = declared

    async def read(self, *, budget: Budget) -> Roster:
        """See `Worklist`."""
        rows: list[Listed] = []
        dropped: Counter[str] = Counter()
        for location in self._declared.locations:
            parameters = (("status", "in-progress"), ("location", f"Location/{location}"))
            search = Search(resource_type="Encounter", parameters=parameters)
            for encounter in (await self._client.search(search, name="worklist", budget=budget)).resources:
                subject = None
                if isinstance(encounter, wire.Encounter):
                    subject = read.subject_of(encounter, fhir_base=self._client.base)
                if subject is None or encounter.id is None:
                    dropped["no-usable-ids"] += 1
                else:
                    rows.append(Listed(patient=(FHIR, subject), encounter=(FHIR, encounter.id)))
        return Roster(rows=tuple(rows), dropped=dict(dropped))
