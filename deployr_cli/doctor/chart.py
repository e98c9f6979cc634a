"""Checks against a test patient's record: every search, pages, facts and units, encounters, vendor reads, the write."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from deployr_cli.doctor.decide import reads as judged
from deployr_cli.doctor.decide.findings import fail, failed, listed, ok, skipped, warn
from deployr_cli.doctor.decide.writes import packet_of_a_test
from deployr_cli.doctor.visit import Visit
from deployr_core.bundle import Bundle
from deployr_core.document_columns import document_row
from deployr_core.documents import Documents
from deployr_core.facts import Encounter
from deployr_core.features import FeatureSpec, LabGroup, VitalGroup
from deployr_core.packet import Subject
from deployr_serve.adapters import fhir_facts
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_plan import Search, plan
from deployr_serve.adapters.fhir_search import FhirClient, Found
from deployr_serve.adapters.identity import FHIR
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Budget, TypedIdentifier

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_PAGES = 4


async def check_search_by_post(visit: Visit) -> bool:
    """Check whether searches may go out by POST; True if they go out by the other way than is set."""
    check = "search by POST"
    if (patient := _patient(visit, check)) is None:
        return False
    search = Search(resource_type="Patient", parameters=(("_id", patient),))
    failures: dict[bool, ServeError | None] = {}
    for by_get in (False, True):
        try:
            await _client(visit, by_get=by_get).search(search)
        except ServeError as error:
            failures[by_get] = error
        else:
            failures[by_get] = None
            break
    is_get_set = visit.settings.search_by_get
    visit.note(judged.judge_post(by_post=failures[False], by_get=failures.get(True), is_get_set=is_get_set))
    return not is_get_set and failures[False] is not None and failures[True] is None


async def check_chart(visit: Visit) -> Encounter | None:
    """Check searches, pages and facts; give the newest encounter that a score could be written to."""
    if (patient := _patient(visit, "searches", "paging", "facts", "units", "encounters", "identifiers")) is None:
        return None
    found = await _check_searches(visit, patient)
    await _check_paging(visit, found)
    _check_identifiers(visit, found)
    encounter = await _check_encounters(visit, patient)
    declared = _by_declaration(visit)
    for models, bundle in declared.items():
        await _check_facts(visit, models, bundle, patient, encounter)
    for name, bundle in visit.bundles().items():
        if bundle.documents is not None:
            await _check_documents(visit, name, bundle.documents, patient)
    if not declared:
        visit.note(skipped("facts", "no model can be used"))
    return encounter


def _patient(visit: Visit, *checks: str) -> str | None:
    """Give the test patient; None with these checks skipped, where there is none or nobody lets us in."""
    blocker = visit.blocker("server fhir", "discovery", "token") or (
        None if checks == ("search by POST",) else visit.blocker("search by POST") and _unless_by_get(visit)
    )
    why = f"after '{blocker}'" if blocker else "needs --patient, a test patient's FHIR id"
    if blocker or visit.asked.patient is None:
        for check in checks:
            visit.note(skipped(check, why))
        return None
    return visit.asked.patient


def _unless_by_get(visit: Visit) -> str | None:
    return None if visit.settings.search_by_get else "search by POST"


def _client(visit: Visit, *, by_get: bool | None = None, page_size: int = 1000) -> FhirClient:
    return FhirClient(
        base=visit.settings.fhir_base,
        transport=visit.watched,
        credentials=visit.application.access.fhir,
        clock=visit.application.services.clock,
        page_size=page_size,
        search_by_get=visit.settings.search_by_get if by_get is None else by_get,
        fhir_version=visit.settings.fhir_version,
        typed_patients=visit.settings.typed_patients,
    )


def _by_declaration(visit: Visit) -> dict[str, Bundle]:
    """Give one bundle of each declaration, by the names of the models that share it."""
    held: dict[str, list[Bundle]] = {}
    for bundle in visit.bundles().values():
        held.setdefault(bundle.spec.digest(), []).append(bundle)
    return {listed((it.manifest.model_id for it in them), most=2): them[0] for them in held.values()}


async def _check_searches(visit: Visit, patient: str) -> dict[str, tuple[Search, Found]]:
    """Send each search of each plan once; two models may need the same one."""
    searches = {"patient": Search(resource_type="Patient", parameters=(("_id", patient),))}
    for models, bundle in _by_declaration(visit).items():
        for name, search in plan(bundle.spec, patient_id=patient, as_of=visit.as_of).items():
            if name in visit.settings.vendor.reads or search in searches.values():
                continue
            searches[name if name not in searches else f"{name} ({models})"] = search
    found = {}
    for name, search in searches.items():
        check = f"search {name}"
        try:
            came = await visit.application.fhir.search(search, name=name)
        except ServeError as error:
            visit.note(failed(check, error))
            continue
        found[name] = (search, came)
        visit.note(judged.judge_search(check, came.record, deadline_s=visit.settings.deadline_s))
    if "patient" in found and not found["patient"][1].resources:
        visit.note(fail("patient", "the EMR knows nobody by that id", "Give --patient the FHIR id of a test patient."))
    return found


async def _check_paging(visit: Visit, found: dict[str, tuple[Search, Found]]) -> None:
    name, (search, at_once) = max(found.items(), key=lambda it: len(it[1][1].resources), default=("", (None, None)))
    if search is None or at_once is None or len(at_once.resources) < 2:
        visit.note(skipped("paging", "no search found two resources: take a patient with more, or another --as-of"))
        return
    size = math.ceil(len(at_once.resources) / _PAGES)
    try:
        by_pages = await _client(visit, page_size=size).search(search, name=name)
    except ServeError as error:
        said = f"{name} by pages of {size}: {error.reason}: {error}"
        visit.note(fail("paging", said, "Ask the EMR's team: records longer than one page cannot be read whole."))
        return
    visit.note(
        judged.judge_paging(
            judged.Paged(
                name=name,
                size=size,
                pages=by_pages.record.pages,
                ids=frozenset(it.id or "" for it in by_pages.resources),
                at_once=frozenset(it.id or "" for it in at_once.resources),
            )
        )
    )


def _check_identifiers(visit: Visit, found: dict[str, tuple[Search, Found]]) -> None:
    patients = [
        it for it in (found["patient"][1].resources if "patient" in found else ()) if isinstance(it, wire.Patient)
    ]
    if not patients:
        visit.note(skipped("identifiers", "after 'search patient'"))
        return
    systems = visit.settings.vendor.identifier_systems
    visit.note(judged.judge_identifiers(patients[0], systems=systems))


async def _check_encounters(visit: Visit, patient: str) -> Encounter | None:
    settings = visit.settings
    search = Search(resource_type="Encounter", parameters=(("patient", patient),))
    try:
        if visit.asked.encounter is not None:
            named = await visit.application.vendor.encounters.with_csn(visit.asked.encounter, budget=None)
            if named.patient_id != patient:
                said = "the encounter of --encounter is another patient's"
                visit.note(fail("encounters", said, "Give the contact serial number of one of the test patient's."))
                return None
            search = Search(resource_type="Encounter", parameters=(("_id", named.encounter_id),))
        came = await visit.application.fhir.search(search)
        if not came.resources and not settings.typed_patients:
            typed = Search(resource_type="Encounter", parameters=(("patient", f"Patient/{patient}"),))
            by_type_and_id = len((await visit.application.fhir.search(typed)).resources)
            visit.note(judged.judge_patient_parameter(by_type_and_id=by_type_and_id))
        wired = [it for it in came.resources if isinstance(it, wire.Encounter)]
        read = [fhir_facts.encounter(it, csn_system=settings.csn_system, zone=settings.zone) for it in wired]
    except ServeError as error:
        visit.note(failed("encounters", error))
        return None
    except ValueError:
        visit.note(fail("encounters", "a date that is none", "Ask the EMR's team for dates as FHIR writes them."))
        return None
    with_csn = [it for it in read if it.contact_serial_number]
    writes = settings.vendor_base is not None
    visit.note(judged.judge_encounters(wired, with_csn=len(with_csn), writes=writes))
    return max(with_csn, key=lambda it: it.start or _LONG_AGO, default=None)


async def _check_facts(visit: Visit, models: str, bundle: Bundle, patient: str, encounter: Encounter | None) -> None:
    """Fetch as serving does, within a request's own time, and look at what became facts."""
    settings, services = visit.settings, visit.application.services
    check = f"facts {models}"
    budget = Budget(deadline=services.clock.monotonic() + settings.deadline_s, correlation_id="doctor")
    subject = Subject(patient_id=patient, encounter_id=encounter.encounter_id if encounter else None)
    try:
        came = await services.source.fetch(subject, bundle.spec, as_of=visit.as_of, budget=budget)
    except ServeError as error:
        visit.note(failed(check, error))
        visit.note(skipped(f"units {models}", f"after '{check}'"))
        return
    visit.note(judged.judge_facts(check, came.facts, came.fetches, came.dropped, deadline_s=settings.deadline_s))
    seen = judged.seen_in(bundle.spec, came.facts)
    if seen.tests:
        visit.note(judged.judge_units(f"units {models}", seen))
        visit.note(judged.judge_codes(f"codes {models}", seen))


async def _check_documents(visit: Visit, model: str, documents: Documents, patient: str) -> None:
    """Fetch and read documents as serving does; what they say is not shown, only how many were read, and why not."""
    services, check = visit.application.services, f"documents {model}"
    if services.documents is None:
        return
    budget = Budget(deadline=services.clock.monotonic() + visit.settings.deadline_s, correlation_id="doctor")
    try:
        came = await services.documents.fetch(patient, documents, as_of=visit.as_of, budget=budget, token=None)
    except ServeError as error:
        visit.note(failed(check, error))
        return
    row = document_row(documents, came.came)
    said = ", ".join(f"{name} {count}" for name, count in sorted({**came.dropped, **row.coverage}.items()))
    if row.shortfall is None:
        visit.note(ok(check, said))
        return
    fix = "Give the test patient such a document, or see docs/model-kinds.md for what the counts mean."
    visit.note(warn(check, f"the model would abstain, {row.shortfall}: {said}", fix))


async def check_vendor(visit: Visit, encounter: Encounter | None) -> None:
    """Check the vendor's reading services, where the settings choose them."""
    vendor = visit.settings.vendor
    if not vendor.needs_vendor_base:
        visit.note(skipped("vendor identifiers", "not chosen in the settings"))
        visit.note(skipped("vendor reads", "not chosen in the settings"))
        return
    if (patient := _patient(visit, "vendor identifiers", "vendor reads")) is None:
        return
    asked = TypedIdentifier(type=FHIR, value=patient)
    try:
        who = await visit.application.vendor.patients.resolve((asked,), budget=None)
    except ServeError as error:
        visit.note(failed("vendor identifiers", error))
    else:
        visit.note(ok("vendor identifiers", f"types known: {listed(sorted({FHIR, *who.also}))}"))
    specs = [bundle.spec for bundle in visit.bundles().values()]
    spec = next((it for it in map(_first_test_of, specs) if it is not None), None)
    if not visit.application.vendor.reads or spec is None:
        visit.note(skipped("vendor reads", "no group is read by them"))
        return
    subject = Subject(patient_id=patient, encounter_id=encounter.encounter_id if encounter else None)
    dropped: Counter[str] = Counter()
    try:
        for reads in visit.application.vendor.reads:
            came = await reads.read(subject, spec, as_of=visit.as_of, budget=None, dropped=dropped)
            said = ", ".join(f"{it.name} {it.resources} in {it.milliseconds:.0f} ms" for it in came.records)
            visit.note(ok("vendor reads", f"{said}; left out: {sum(dropped.values())}"))
    except ServeError as error:
        visit.note(failed("vendor reads", error))


def _first_test_of(spec: FeatureSpec) -> FeatureSpec | None:
    """Narrow a declaration to one laboratory test, so that one call is made; vital signs need an encounter."""
    for group in spec.groups:
        if isinstance(group, LabGroup):
            narrowed = msgspec.structs.replace(group, analytes=group.analytes[:1])
            return msgspec.structs.replace(spec, groups=(narrowed,))
    others = tuple(group for group in spec.groups if not isinstance(group, VitalGroup))
    return msgspec.structs.replace(spec, groups=others[:1]) if others else None


async def check_write(visit: Visit, encounter: Encounter | None) -> None:
    """Say what can be told about writing; with ``write_test``, write one score of 0."""
    check = "write"
    told = judged.creates(visit.statement)
    if visit.settings.vendor_base is None:
        visit.note(skipped(check, f"no DEPLOYR_EMR_VENDOR_BASE: no score is written; {told}"))
        return
    if not visit.asked.write_test:
        visit.note(skipped(check, f"the score column tells only by a write: pass --write-test; {told}"))
        return
    bundle = next(iter(visit.bundles().values()), None)
    if bundle is None or encounter is None or encounter.contact_serial_number is None:
        visit.note(skipped(check, "nothing to write to: see 'encounters' and 'models'"))
        return
    site = visit.settings
    packet = packet_of_a_test(
        bundle,
        site=site.site,
        environment=site.environment,
        patient_id=visit.asked.patient or "",
        csn=encounter.contact_serial_number,
        now=visit.clock.now(),
    )
    for output in visit.application.services.outputs:
        try:
            await output.send(packet, bundle, delivery_id=f"{packet.packet_id}.{output.name}")
        except ServeError as error:
            fix = f"Have the EMR's team let us write the column {site.score_namespace}.{bundle.manifest.score_name}@1."
            visit.note(replace(failed(check, error), fix=fix))
        else:
            said = f"one score of 0 taken by the {output.name} for {bundle.manifest.model_id}; {told}"
            visit.note(ok(check, said))
