"""Facts that a CDS Hooks request hands over: which of them stand for a search of our own, and what to ask for. Pure.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#prefetch-template [seen].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from deployr_core.features import FeatureSpec
from deployr_core.instants import parse_instant
from deployr_core.packet import FetchRecord
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_facts import subject_of
from deployr_serve.adapters.fhir_matches import Matches, next_links
from deployr_serve.adapters.fhir_outcome import is_restricted
from deployr_serve.adapters.fhir_page import R4, Version, decode_answer
from deployr_serve.adapters.fhir_plan import Search, plan
from deployr_serve.adapters.fhir_search import Found
from deployr_serve.core.errors import EmrBadResponse, EmrIncomplete, EmrTooLarge, Restricted, WrongPatient

MAX_BYTES = 10_000_000
"""Of one value that is handed over; what is larger is not read, and fetched instead."""

FRESH_FOR = timedelta(minutes=5)
"""How long before the question a value may have been put together, where it says when that was."""


def usable(
    handed: Mapping[str, bytes],
    searches: Mapping[str, Search],
    *,
    patient_id: str,
    fhir_base: str,
    now: datetime,
    version: Version = R4,
) -> tuple[dict[str, Found], dict[str, str]]:
    """Give what need not be fetched, by the name of the search, and why the rest of what was handed over has to be.

    A value stands for a search if it is whole (no next page, as many matches as it counts), fresh, and a searchset or,
    for a search by id, the resource itself. ``null`` is an answer: nothing matched. What a value holds beyond the
    search, such as older results, is left in; windows are applied to all facts alike.

    Returns:
        The reasons are ``too-large``, ``not-fhir``, ``failed``, ``incomplete`` and ``old``.

    Raises:
        WrongPatient: a value of another type, or with anything in it about another patient. Nothing of it is used, and
            nothing is scored: whoever mixes patients up once may do so where it does not show.
        Restricted: a value says that some of the record is withheld.
    """
    found, refused = {}, {}
    for name, search in searches.items():
        if name in handed:
            came = _read(handed[name], search, name=name, now=now, version=version)
            if isinstance(came, str):
                refused[name] = came
            else:
                _insist_on(patient_id, came, search, fhir_base=fhir_base)
                found[name] = came
    return found, refused


def prefetch_templates(spec: FeatureSpec, *, version: Version = R4) -> dict[str, str]:
    """Give what the service asks to be handed over, by the names of the searches.

    Templates carry no dates, for which CDS Hooks has no tokens: all of a kind is asked for, and the windows are applied
    to what comes. The encounter's is left out by the EMR where the hook has none.
    """
    templates = {"patient": f"Patient/{_PATIENT}", "encounter": "Encounter/{{context.encounterId}}"}
    for name, search in plan(spec, patient_id=_PATIENT, as_of=_ANY_TIME).items():
        undated = tuple(pair for pair in search.parameters if not pair[1].startswith("ge"))
        named = version.parameters_of(search.resource_type, undated)
        query = "&".join(f"{key}={quote(value, safe='{}|,:/.')}" for key, value in named)
        templates[name] = f"{version.type_of(search.resource_type)}?{query}"
    return templates


_PATIENT = "{{context.patientId}}"
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def _read(body: bytes, search: Search, *, name: str, now: datetime, version: Version) -> Found | str:
    """Give what was handed over as if it had been found, or the reason why it has to be fetched."""
    if len(body) > MAX_BYTES:
        return "too-large"
    if body.strip() == b"null":
        # Nothing matches a search; but what is asked for by its id is there, or the request is about nobody.
        return "failed" if _asked_id(search) is not None else _found((), search, name=name, now=now, total=0)
    try:
        answer = decode_answer(body, version=version)
    except EmrTooLarge:
        return "too-large"
    except ValueError:
        return "not-fhir"
    if isinstance(answer, wire.OperationOutcome):
        if is_restricted(answer):
            raise Restricted("expected the whole record, but the EMR withholds some or all of it")
        return "failed"
    if not isinstance(answer, wire.Bundle):
        if type(answer).__name__ != search.resource_type or _asked_id(search) is None:
            raise WrongPatient(f"expected a searchset of {search.resource_type} to be handed over")
        return _found((answer,), search, name=name, now=now, total=None)
    return _whole(answer, search, name=name, now=now)


def _whole(page: wire.Page, search: Search, *, name: str, now: datetime) -> Found | str:
    wanted = (getattr(wire, search.resource_type), wire.OperationOutcome)
    for entry in page.entry:
        if type(entry.resource) not in wanted and (entry.search is None or entry.search.mode != "include"):
            raise WrongPatient(f"expected only {search.resource_type} to be handed over")
    if next_links(page):
        return "incomplete"
    matches = Matches(search.resource_type, with_included=True)
    try:
        matches.add(page)
        matches.insist_on_all()
        put_together = parse_instant(page.meta.last_updated) if page.meta and page.meta.last_updated else None
    except EmrIncomplete:
        return "incomplete"
    except (EmrBadResponse, ValueError):
        return "failed"
    if put_together is not None and now - put_together > FRESH_FOR:
        return "old"
    dropped: Counter[str] = Counter()
    resources = matches.resources(dropped)
    age_s = max((now - put_together).total_seconds(), 0.0) if put_together else 0.0
    return _found(
        resources,
        search,
        name=name,
        now=now,
        total=matches.total,
        included=matches.included(),
        dropped=dropped,
        age_s=age_s,
    )


def _found(
    resources: tuple[wire.Resource, ...],
    search: Search,
    *,
    name: str,
    now: datetime,
    total: int | None,
    included: tuple[wire.Resource, ...] = (),
    dropped: Mapping[str, int] | None = None,
    age_s: float = 0.0,
) -> Found:
    record = FetchRecord(
        resource=search.resource_type,
        resources=len(resources),
        pages=1,
        milliseconds=0.0,
        name=name,
        via="prefetch",
        started_at=now,
        requests=0,
        total=total,
    )
    return Found(resources=resources, record=record, included=included, dropped=dict(dropped or {}), age_s=age_s)


def _insist_on(patient_id: str, found: Found, search: Search, *, fhir_base: str) -> None:
    """Return if all of it is about this patient, or does not say; and is what was asked for, where that was one thing.

    What says nothing is left out later, and counted, as when it is fetched.
    """
    asked, usual = _asked_id(search), wire.Reference(reference=f"Patient/{patient_id}")
    for resource in found.resources:
        # As nearly all say it, it need not be taken apart.
        if asked is None and getattr(resource, "subject", None) == usual:
            continue
        about: str | None = patient_id
        if isinstance(resource, wire.Patient):
            about = resource.id
        elif not isinstance(resource, (wire.OperationOutcome, wire.Medication)):
            about = subject_of(resource, fhir_base=fhir_base)
        if about not in (patient_id, None) or asked not in (resource.id, None):
            raise WrongPatient("expected what is handed over to be about the patient of the request")


def _asked_id(search: Search) -> str | None:
    return dict(search.parameters).get("_id")
