"""What a batch is: whom it scores, when, with which models, and what size of worklist is plausible. Pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta, tzinfo
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from deployr_core.instants import parse_zone
from deployr_core.packet import Subject
from deployr_serve.core.ports import Budget
from deployr_serve.core.schedule import Schedule, parse_schedule

FHIR = "FHIR"
"""The type of a FHIR id."""
CSN = "CSN"
"""The type of a contact serial number."""

_USUAL_NEEDS = 3
"""How many runs tell what is usual; with fewer, the absolute limits decide alone."""
_FEW = 10
"""Of so few patients, neither none nor several times as many is out of the ordinary."""

_Words = Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]
_Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the declaration; a key that is not known is refused, because it may be a limit that was misspelt."""


class UnitCensus(_Declared, frozen=True, kw_only=True, tag_field="from", tag="census"):
    """Who lies in these units now, by the vendor's GETCENSUSBYUNIT."""

    units: _Words
    patient_id_type: str = FHIR


class EncounterSearch(_Declared, frozen=True, kw_only=True, tag_field="from", tag="fhir"):
    """Whoever has an encounter in progress at one of these locations, by FHIR search; locations by FHIR id."""

    locations: Annotated[tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9\-.]{1,64}$")], ...], Meta(min_length=1)]


class CsvDrop(_Declared, frozen=True, kw_only=True, tag_field="from", tag="csv"):
    """A file that another job drops, with the columns patientId and encounterId."""

    file: str
    at_most_hours_old: Annotated[float, Meta(gt=0)] = 24.0
    patient_id_type: str = FHIR
    encounter_id_type: str = FHIR


class SqlReport(_Declared, frozen=True, kw_only=True, tag_field="from", tag="sql"):
    """What a query of the site's database gives, with the columns patientId and encounterId."""

    query: str
    patient_id_type: str = FHIR
    encounter_id_type: str = FHIR


WorklistFrom = UnitCensus | EncounterSearch | CsvDrop | SqlReport


class Band(_Declared, frozen=True, kw_only=True):
    """How many patients are plausible; both ends of each range are included.

    ``of_usual``: shares of the median of the last ``usual_runs`` runs; they count once there were three.
    """

    at_least: Annotated[int, Meta(ge=0)] = 1
    at_most: Annotated[int, Meta(ge=1)] = 5000
    least_of_usual: Annotated[float, Meta(ge=0, le=1)] = 0.25
    most_of_usual: Annotated[float, Meta(ge=1)] = 4.0
    usual_runs: Annotated[int, Meta(ge=_USUAL_NEEDS, le=60)] = 7

    def too_small(self, size: int, recent: Sequence[int]) -> bool:
        """Tell whether so few are no plausible worklist, after ``recent`` sizes, the latest last."""
        usual = self._usual(recent)
        return size < self.at_least or (usual is not None and usual >= _FEW and size < self.least_of_usual * usual)

    def too_large(self, size: int, recent: Sequence[int]) -> bool:
        """Tell whether so many are no plausible worklist."""
        usual = self._usual(recent)
        return size > self.at_most or (usual is not None and size > self.most_of_usual * max(usual, _FEW))

    def _usual(self, recent: Sequence[int]) -> float | None:
        last = recent[-self.usual_runs :]
        return statistics.median(last) if len(last) >= _USUAL_NEEDS else None


class Batch(_Declared, frozen=True, kw_only=True):
    """One batch, as its file declares it.

    ``models`` or a ``group`` of them; ``schedule`` is NCRONTAB on the clocks of ``zone``, None is the site's. A slot
    that could not be begun within ``start_within_minutes`` is left out: its scores would be late.
    """

    schema_version: Annotated[int, Meta(ge=1, le=1)]
    name: _Name
    schedule: str
    worklist: WorklistFrom
    models: tuple[str, ...] = ()
    group: str | None = None
    zone: str | None = None
    chunk_size: Annotated[int, Meta(ge=1, le=500)] = 50
    band: Band = Band()
    start_within_minutes: Annotated[int, Meta(ge=1, le=24 * 60)] = 60

    def __post_init__(self) -> None:
        if bool(self.models) == (self.group is not None):
            raise ValueError("expected either models or a group")
        if len(set(self.models)) != len(self.models):
            raise ValueError("expected each of the models once")
        self.slots(UTC)

    def slots(self, site_zone: tzinfo) -> Schedule:
        """Give its schedule; ``site_zone`` is for a batch that names no zone.

        Raises:
            ValueError: the schedule or the zone cannot be read.
        """
        return parse_schedule(self.schedule, zone=site_zone if self.zone is None else parse_zone(self.zone))

    @property
    def start_within(self) -> timedelta:
        """How long after its instant a slot may still be begun."""
        return timedelta(minutes=self.start_within_minutes)


class WorklistUnusable(Exception):
    """The worklist could not be had, or is not whole; a good one may be there a minute later.

    ``reason`` is a code from the glossary. The message repeats nothing of the worklist's.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One row of a worklist, as its source names them: ids with their type, such as FHIR, MRN or CSN."""

    patient: tuple[str, str] | None = field(repr=False)
    encounter: tuple[str, str] | None = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """A worklist as it was read; ``dropped`` counts the rows that name nobody, by reason."""

    rows: tuple[Listed, ...] = field(repr=False)
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RollCall:
    """Who of a worklist is to be scored, each patient once; ``skipped`` counts the others, by reason."""

    present: tuple[Subject, ...] = field(repr=False)
    skipped: Mapping[str, int]


class Worklist(Protocol):
    """Where a batch takes its patients from."""

    async def read(self, *, budget: Budget) -> Roster:
        """Give who is to be scored now.

        Raises:
            WorklistUnusable: no worklist, or not a whole one.
            ServeError: the EMR did not give it.
        """


class RollCaller(Protocol):
    """Finds out who is meant, and who is still there."""

    async def call(self, roster: Roster, *, budget: Budget) -> RollCall:
        """Give each patient of the roster once, by FHIR ids, without those who are not there any more.

        The reasons to skip one: ``unknown-patient``, ``ambiguous-patient``, ``unknown-context``, ``wrong-patient``,
        ``merged``, ``deceased``, ``discharged``, ``restricted``, ``repeated``, ``no-usable-ids``.

        Raises:
            TryLater, FixSetup: the EMR did not answer; a part of the answers is never taken for the whole.
        """


class Queue(Protocol):
    """Hands chunks to whoever is free, each until somebody has finished it."""

    async def put(self, message: str) -> None:
        """Add a message; it names a chunk and carries nothing of a patient's.

        Raises:
            StoreUnavailable: it may or may not have been added.
        """


PLACE = re.compile(r"[a-z][a-z0-9-]{0,39}\.[0-9]{8}T[0-9]{6}Z(?:\.[0-9]{1,4}-[0-9]{1,5})?\Z", re.ASCII)
"""What the id of a run or of a chunk looks like."""
