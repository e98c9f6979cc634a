"""Checks of the way in: models, the servers, clocks, discovery, our key, the token and what it grants."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from deployr_cli.doctor.decide import access as judged
from deployr_cli.doctor.decide.findings import Finding, fail, failed, ok, skipped, warn
from deployr_cli.doctor.decide.reads import instead_of_statement, judge_offered, judge_statement, statement_in
from deployr_cli.doctor.visit import Visit, host_of, shake_hands
from deployr_core.bundle import MANIFEST_FILE
from deployr_serve.adapters.auth import Credentials, send_authorized
from deployr_serve.adapters.fhir_plan import Search, plan
from deployr_serve.adapters.http import Request, Response, origin
from deployr_serve.adapters.scopes import Scopes, label_scopes, scopes_of
from deployr_serve.adapters.tls import tls_context
from deployr_serve.auth_settings import AuthKind
from deployr_serve.core.errors import ServeError
from deployr_serve.settings import Profile, Settings

_LONGEST_HANDSHAKE_S = 10.0


async def check_way_in(visit: Visit) -> None:
    """Check all that needs no patient, what blocks others first."""
    _check_profile(visit)
    _check_models(visit)
    await _check_servers(visit)
    if blocker := visit.blocker("server fhir"):
        await _check_key(visit)
        for check in ("clock fhir", "discovery", "token", "scopes", "metadata", "search parameters"):
            visit.note(skipped(check, f"after '{blocker}'"))
        return
    configuration = await _check_clock_and_discovery(visit)
    await _check_key(visit)
    await _check_token(visit, configuration)
    await _check_statement(visit)


def _check_profile(visit: Visit) -> None:
    settings = visit.settings
    said = f"{settings.profile}, site {settings.site}, environment {settings.environment}"
    if settings.profile is Profile.DEV:
        fix = "Set DEPLOYR_PROFILE=prod before go-live: it refuses whatever is only good enough for trying out."
        visit.note(warn("settings", f"all read; profile {said}", fix))
    else:
        visit.note(ok("settings", f"all read; profile {said}"))


def _check_models(visit: Visit) -> None:
    deployed = visit.application.services.models.deployed()
    if not deployed:
        visit.note(
            fail("models", "none found", "Put each bundle into a sub-folder of DEPLOYR_BUNDLES, named as it is.")
        )
    for name, reason in deployed.items():
        if reason is not None:
            fix = "Deploy the bundle as it was written and signed; `deployr bundle verify` checks it alone."
            if reason.startswith(f"{MANIFEST_FILE}: expected in the bundle"):
                fix = "There is no bundle in this folder: move it out of DEPLOYR_BUNDLES."
            visit.note(fail(f"model {name}", reason, fix))
    for name, bundle in visit.bundles().items():
        signed = "signed by a trusted key" if bundle.signed_by else "signature not looked at (no DEPLOYR_TRUSTED_KEYS)"
        needs = ", ".join(sorted({each.resource_type for each in scopes_of(bundle)}))
        said = f"version {bundle.manifest.version}, digest and golden scores right, {signed}; reads {needs}"
        visit.note(ok(f"model {name}", said))


async def _check_servers(visit: Visit) -> None:
    settings = visit.settings
    bases = {"server fhir": settings.fhir_base}
    if (elsewhere := _vendor_base_elsewhere(settings)) is not None:
        bases["server vendor"] = elsewhere
    tls = tls_context(settings.ca_file)
    for check, base in bases.items():
        try:
            shaken = await shake_hands(base, tls=tls, timeout_s=min(settings.deadline_s, _LONGEST_HANDSHAKE_S))
        except ServeError as error:
            setting = "DEPLOYR_EMR_FHIR_BASE" if base == settings.fhir_base else "DEPLOYR_EMR_VENDOR_BASE"
            fix = f"Look at {setting}, at DNS and at the firewall between this machine and the server."
            if "certificate" in str(error):
                fix = "Name the hospital's own authority in DEPLOYR_EMR_CA_FILE, or have the certificate renewed."
            visit.note(replace(_named(failed(check, error), host_of(base)), fix=fix))
            continue
        visit.note(_named(judged.judge_handshake(check, shaken, now=visit.clock.now()), host_of(base)))


def _vendor_base_elsewhere(settings: Settings) -> str | None:
    base = settings.vendor_base
    return base if base is not None and origin(base) != origin(settings.fhir_base) else None


def _named(finding: Finding, name: str) -> Finding:
    return replace(finding, said=f"{name}: {finding.said}")


async def _check_clock_and_discovery(visit: Visit) -> judged.SmartConfiguration | None:
    settings = visit.settings
    check, found = "discovery", None
    try:
        response = await _get(visit, f"{settings.fhir_base}/.well-known/smart-configuration")
    except ServeError as error:
        visit.note(skipped("clock fhir", "no answer to read the time from"))
        visit.note(failed(check, error))
        return None
    _check_clock(visit, "clock fhir", settings.fhir_base)
    if (elsewhere := _vendor_base_elsewhere(settings)) is not None and not visit.blocker("server vendor"):
        await _check_vendor_clock(visit, elsewhere)
    smart = settings.auth.smart
    if smart is None:
        visit.note(skipped(check, f"not used: we come in with {settings.auth.fhir}"))
        return None
    if response.status == 200:
        found = judged.smart_configuration(response.body)
    visit.note(
        judged.judge_discovery(
            response.status,
            found,
            algorithm=smart.algorithm,
            token_origins=frozenset(origin(each) for each in (settings.fhir_base, *smart.token_origins)),
            needed=_of_labels(visit).union(*(scopes_of(each) for each in visit.bundles().values())),
        )
    )
    return found


async def _check_vendor_clock(visit: Visit, base: str) -> None:
    try:
        await _get(visit, base)  # whatever it answers, it says what time it has
    except ServeError as error:
        visit.note(failed("clock vendor", error))
    else:
        _check_clock(visit, "clock vendor", base)


def _check_clock(visit: Visit, check: str, base: str) -> None:
    date, ours = visit.watched.dates[origin(base)]
    visit.note(judged.judge_clock(check, date, ours=ours))


async def _check_key(visit: Visit) -> None:
    if visit.settings.auth.smart is None:
        visit.note(skipped("key", f"not used: we come in with {visit.settings.auth.fhir}"))
        return
    ours = visit.application.jwks()
    visit.note(judged.judge_key(ours))
    url = visit.asked.jwks_url
    if url is None:
        visit.note(skipped("jwks", "pass --jwks-url with the address that the EMR fetches our key set from"))
        return
    try:
        served = await _get(visit, url)
    except ServeError as error:
        visit.note(replace(failed("jwks", error), fix="Make /.well-known/jwks.json of this app reachable there."))
    else:
        visit.note(judged.judge_jwks(ours, status=served.status, theirs=served.body))


async def _check_token(visit: Visit, configuration: judged.SmartConfiguration | None) -> None:
    credentials = _smart_credentials(visit)
    if credentials is None:
        visit.note(skipped("token", f"not used: we come in with {visit.settings.auth.fhir}"))
        visit.note(skipped("scopes", "no token, no scopes: the searches below tell what we may read"))
        return
    if blocker := visit.blocker("discovery"):
        visit.note(skipped("token", f"after '{blocker}'"))
        visit.note(skipped("scopes", f"after '{blocker}'"))
        return
    visit.watched.token_endpoint = configuration.token_endpoint if configuration else None
    try:
        granted = await credentials.granted()
    except ServeError as error:
        fix = "Compare DEPLOYR_EMR_CLIENT_ID and the registered key set with what the EMR's team has for this client."
        if error.reason == "insufficient-scope":
            fix = (
                "Have the EMR's team register these scopes for our client, or narrow DEPLOYR_EMR_SCOPE to what it has."
            )
        visit.note(replace(failed("token", error), fix=fix) if error.reason[:4] != "emr-t" else failed("token", error))
        visit.note(skipped("scopes", "after 'token'"))
        return
    visit.note(judged.judge_token(_token_answer(visit.watched.token_answer)))
    needs = {name: scopes_of(bundle) for name, bundle in visit.bundles().items()}
    visit.note(judged.judge_scopes(granted, needs, labels=_of_labels(visit)))


def _of_labels(visit: Visit) -> Scopes:
    return label_scopes(bundle.manifest.task.rule for bundle in visit.bundles().values())


def _smart_credentials(visit: Visit) -> Credentials | None:
    auth, access = visit.settings.auth, visit.application.access
    if auth.fhir is AuthKind.SMART:
        return access.fhir
    return access.vendor if auth.vendor is AuthKind.SMART else None


def _token_answer(response: Response | None) -> judged.TokenAnswer | None:
    try:
        return msgspec.json.decode(response.body, type=judged.TokenAnswer) if response else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def _check_statement(visit: Visit) -> None:
    url = f"{visit.settings.fhir_base}/metadata"
    try:
        response = await _get(visit, url)
        if response.status in {401, 403} and not visit.blocker("token"):
            request = Request(method="GET", url=url, headers=_FHIR)
            access = visit.application.access.fhir
            response = await send_authorized(request, transport=visit.watched, credentials=access)
    except ServeError as error:
        visit.note(failed("metadata", error))
        visit.note(skipped("search parameters", "after 'metadata'"))
        return
    visit.statement = statement_in(response.body) if response.status == 200 else None
    version, instead = visit.settings.fhir_version, instead_of_statement(response.body)
    visit.note(judge_statement(response.status, visit.statement, version=version, instead=instead))
    if visit.statement is None:
        visit.note(skipped("search parameters", "after 'metadata'"))
    else:
        visit.note(judge_offered(visit.statement, _planned(visit)))


def _planned(visit: Visit) -> list[Search]:
    """Give all that is searched for any model, in the words of the server's version."""
    version = visit.application.fhir.version
    searches = [
        Search(resource_type=each, parameters=(("_id", ""),)) for each in ("Patient", "Encounter", "ServiceRequest")
    ]
    if visit.settings.vendor.identifier_systems:
        searches.append(Search(resource_type="Patient", parameters=(("identifier", ""),)))
    for bundle in visit.bundles().values():
        planned = plan(bundle.spec, patient_id="", as_of=visit.as_of)
        searches += [it for name, it in planned.items() if name not in visit.settings.vendor.reads]
    return [
        Search(
            resource_type=version.type_of(it.resource_type),
            parameters=version.parameters_of(it.resource_type, it.parameters),
        )
        for it in searches
    ]


_FHIR = {"Accept": "application/fhir+json"}


async def _get(visit: Visit, url: str) -> Response:
    """Ask without credentials, whatever comes of it."""
    headers = {"Accept": "application/json"} if "/.well-known/" in url else _FHIR
    return await visit.watched.send(Request(method="GET", url=url, headers=headers))
