"""The patient list: who is in hospital, or everybody, found by words and put in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from mock_emr.elements import child, each
from mock_emr.emr import Emr
from mock_emr.scores import Cell
from mock_emr.screens.people import Person, name_of, person_in
from mock_emr.screens.score_cells import ScoreCell, by_contact, score_cells
from mock_emr.store import Form, csn_of

PAGE = 25
MOST_COLUMNS = 3
_UNDERWAY = (None, "in-progress")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One line of the list. ``since`` and ``ward`` are of the open stay, None where there is none."""

    person: Person
    since: datetime | None
    ward: str | None
    scores: Mapping[str, ScoreCell] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Census:
    """One page of the list, from 1; ``models`` are the score columns, ``total`` counts all that were found."""

    rows: tuple[Listed, ...]
    total: int
    page: int
    models: tuple[str, ...]
    all_models: tuple[str, ...]

    @property
    def pages(self) -> int:
        """Count the pages, at least one."""
        return max(-(-self.total // PAGE), 1)


@dataclass(frozen=True, kw_only=True)
class _Stay:
    patient_id: str = field(repr=False)
    since: datetime
    encounter: Mapping[str, Any] = field(repr=False)
    scored_at: datetime | None


def census_of(emr: Emr, *, everybody: bool, words: str, page: int, model: str | None) -> Census:
    """Give one page of the list: those in hospital with the latest score first, or everybody in order of loading.

    Args:
        emr: whose chart.
        everybody: those who are not in hospital as well.
        words: of the name, the id or another identifier; empty finds all.
        page: from 1; past the last it is the last.
        model: the one score column to show; None shows up to three.
    """
    contacts = by_contact(emr.scores.cells())
    all_models = tuple(sorted({cell.model_id for cells in contacts.values() for cell in cells}))
    stays = {stay.patient_id: stay for stay in _stays(emr, contacts)}
    ids = [str(form.patient_id) for form in _patients(emr)] if everybody else list(stays)
    if words:
        ids = [patient_id for patient_id in ids if _is_called(emr, patient_id, words.casefold())]
    pages = max(-(-len(ids) // PAGE), 1)
    page = min(max(page, 1), pages)
    rows = (
        _listed(emr, patient_id, stays.get(patient_id), contacts) for patient_id in ids[(page - 1) * PAGE : page * PAGE]
    )
    return Census(
        rows=tuple(row for row in rows if row is not None),
        total=len(ids),
        page=page,
        models=(model,) if model in all_models else all_models[:MOST_COLUMNS],
        all_models=all_models,
    )


def stays_of(emr: Emr, patient_id: str) -> Iterator[Mapping[str, Any]]:
    """Give the patient's encounters as they show now."""
    now = emr.clock.now()
    for record in emr.store.of_patients("Encounter", (patient_id,)):
        if (form := record.at(now)) is not None:
            yield msgspec.json.decode(form.body)


def cells_of(emr: Emr, patient_id: str, contacts: Mapping[str, Sequence[Cell]]) -> Iterator[Cell]:
    """Give the score cells of all of a patient's encounters."""
    for encounter in stays_of(emr, patient_id):
        yield from contacts.get(csn_of(encounter) or "", ())


def ward_of(encounter: Mapping[str, Any]) -> str | None:
    """Say where an encounter takes place; the last that is named is where the patient is now."""
    named = [child(place, "location") for place in each(encounter.get("location"))]
    texts = [str(place.get("display") or place.get("reference", "")) for place in named]
    return next((text for text in reversed(texts) if text), None)


def _stays(emr: Emr, contacts: Mapping[str, Sequence[Cell]]) -> list[_Stay]:
    """Give the open stays: the one with the latest score last of all, so that of a patient's several it stays."""
    now, found = emr.clock.now(), []
    for record in emr.store.all_of("Encounter"):
        form = record.at(now)
        if form is None or form.patient_id is None or _UNDERWAY not in form.terms.get("status", ()):
            continue
        encounter = msgspec.json.decode(form.body)
        cells = contacts.get(csn_of(encounter) or "", ())
        scored_at = max((cell.rows[-1].written_at for cell in cells), default=None)
        since = form.intervals["date"].low if "date" in form.intervals else record.shown_from
        found.append(_Stay(patient_id=form.patient_id, since=since, encounter=encounter, scored_at=scored_at))
    return sorted(found, key=lambda stay: (stay.scored_at or stay.since, stay.since), reverse=True)


def _patients(emr: Emr) -> Iterator[Form]:
    now = emr.clock.now()
    return (form for record in emr.store.all_of("Patient") if (form := record.at(now)) is not None)


def _is_called(emr: Emr, patient_id: str, words: str) -> bool:
    form = emr.store.read("Patient", patient_id, now=emr.clock.now())
    return form is not None and any(words in text for text in _names(form.body))


@lru_cache(maxsize=100_000)
def _names(body: bytes) -> tuple[str, ...]:
    """Give all that a patient can be found by; remembered, because each search looks at everybody."""
    patient = msgspec.json.decode(body)
    values = [str(held.get("value", "")) for held in each(patient.get("identifier"))]
    return tuple(text.casefold() for text in (name_of(patient) or "", str(patient["id"]), *values))


def _listed(emr: Emr, patient_id: str, stay: _Stay | None, contacts: Mapping[str, Sequence[Cell]]) -> Listed | None:
    form = emr.store.read("Patient", patient_id, now=emr.clock.now())
    if form is None:
        return None
    return Listed(
        person=person_in(msgspec.json.decode(form.body), now=emr.clock.now()),
        since=None if stay is None else stay.since,
        ward=None if stay is None else ward_of(stay.encounter),
        scores=score_cells(cells_of(emr, patient_id, contacts)) if contacts else {},
    )
