"""What the app says of its JSON routes is what they do: schemathesis asks them whatever the document allows, and not.

The app runs under the local host in a process of its own, against an EMR on loopback.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deployr_serve.triggers.openapi import render_openapi
from tests.functional.deployr_serve.cds_parts import hosted, validated
from tests.registry_parts import basic, people_file

KEY = {"x-functions-key": "function-key", **basic("vic")}
KNOWN = {"patientId": "p1", "encounterId": "e1", "orderId": "o1", "eventTime": "2015-01-06T20:55:00Z"}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
DEPLOYMENT = "schema_version: 1\nmodel: {model}\nmode: live\ngroups: [blood-count]\nform: true\n"
NAMES = {"model": "hematocrit", "group": "blood-count", "run": "hematocrit-0123456789ab", "act": "deploy"}


@pytest.fixture
async def base(emr_of, chart_of, bundles_folder, tmp_path, now):
    """Give the address of the app, which knows a patient ``p1`` and a group of two models."""
    emr = await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))
    (tmp_path / "clock").write_text(now.isoformat())
    (tmp_path / "deployments").mkdir()
    for model in ("hematocrit", "anemia"):
        (tmp_path / "deployments" / f"{model}.yaml").write_text(DEPLOYMENT.format(model=model))
    settings = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_DEPLOYMENTS": str(tmp_path / "deployments"),
        "DEPLOYR_STORE": "memory",
        "DEPLOYR_EMR_FHIR_BASE": f"{emr.url}/api/FHIR/R4",
        "DEPLOYR_EMR_VENDOR_BASE": emr.url,
        "DEPLOYR_CLOCK_FILE": str(tmp_path / "clock"),
        "DEPLOYR_RELAY_SCHEDULE": "0 0 0 1 1 *",
        "DEPLOYR_REGISTRY_PEOPLE": people_file(tmp_path),
        "DEPLOYR_BUNDLE_ARCHIVE": str(tmp_path / "runs"),
        "DEPLOYR_HOST_FUNCTION_KEY": KEY["x-functions-key"],
    }
    async with hosted(tmp_path, **settings) as base:
        yield base


def statuses_of(operation, base, *, mode):
    """Ask one operation what it may be asked (or may not), check every answer, and give their statuses."""
    found = set()
    infers = operation.path.endswith("/infer")

    @hypothesis.settings(
        max_examples=25 if infers else 5,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), is_known=st.booleans())
    def ask(case, is_known):
        is_allowed = mode is schemathesis.GenerationMode.POSITIVE
        if is_allowed or case.meta.is_negative_at(ParameterLocation.BODY):
            case.path_parameters = {name: NAMES[name] for name in case.path_parameters}
        if is_allowed and is_known and infers and isinstance(case.body, dict):
            case.body = {**case.body, **KNOWN}
        response = case.call(base_url=base, headers=KEY)
        found.add(response.status_code)
        case.validate_response(response, checks=CHECKS, headers=KEY)

    ask()
    return found


async def test_every_answer_is_one_that_the_document_tells_of(base):
    document = schemathesis.openapi.from_url(f"{base}/api/openapi.json")
    document.validate()
    asked = {}
    for result in document.get_all_operations():
        operation = result.ok()
        asked[operation.path, operation.method] = await asyncio.to_thread(
            statuses_of, operation, base, mode=schemathesis.GenerationMode.POSITIVE
        )
        if operation.path.endswith("/infer"):
            refused = await asyncio.to_thread(statuses_of, operation, base, mode=schemathesis.GenerationMode.NEGATIVE)
            assert 400 in refused
            assert max(refused) < 500
    # Schemathesis leaves out the document itself, which it has just read.
    told = {(path, method) for path, item in json.loads(render_openapi())["paths"].items() for method in item}
    assert asked.keys() == told - {("/api/openapi.json", "get")}
    for (path, _), statuses in asked.items():
        if path.endswith("/infer"):
            assert {200, 422} <= statuses
            assert max(statuses) < 500
        elif path.startswith("/api/registry/"):
            # Of a viewer, who may do nothing.
            assert statuses <= {200, 403, 404}
        else:
            assert statuses == ({422} if path.endswith("/form") else {200})


async def test_other_methods_get_405_with_those_that_are_allowed_and_no_key_gets_401(base):
    # Of CDS Hooks, too, whose routes stand at the root and are no part of the document.
    def ask(method, path, headers=KEY):
        request = urllib.request.Request(base + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, set()
        except urllib.error.HTTPError as error:
            return error.code, set(filter(None, error.headers.get("Allow", "").split(", ")))

    for path, item in json.loads(render_openapi())["paths"].items():
        where = path.format(**NAMES) if "{" in path else path
        allowed = {method.upper() for method in item}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
            status, allow = await asyncio.to_thread(ask, method, where)
            assert (method, where, status) == (method, where, 405)
            assert allow - {"HEAD", "OPTIONS"} == allowed
        for method, operation in item.items():
            if operation["security"]:
                assert (await asyncio.to_thread(ask, method.upper(), where, {}))[0] == 401
    discovered = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{base}/cds-services").read())
    listed = {service["id"] for service in validated(json.loads(discovered), "discovery")["services"]}
    assert listed >= {"hematocrit-order-sign", "anemia-order-select"}
    for method, path, expected, allowed in (
        ("GET", "/cds-services/hematocrit-order-sign", 405, {"POST"}),
        ("TRACE", "/cds-services/hematocrit-order-sign", 405, {"POST"}),
        ("POST", "/cds-services", 405, {"GET"}),
        ("POST", "/cds-services/nobody-order-sign", 404, set()),
        ("GET", "/api/cds-services", 404, set()),
    ):
        status, allow = await asyncio.to_thread(ask, method, path)
        assert (method, path, status) == (method, path, expected)
        assert allow >= allowed
