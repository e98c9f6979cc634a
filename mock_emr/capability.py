"""What the server says about itself: the CapabilityStatement and the SMART configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mock_emr.assertion import ALGORITHMS
from mock_emr.parameters import PARAMETERS, parameters_of
from mock_emr.written import WriteSite

_EXPORT = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"
SCOPES = tuple(f"system/{resource_type}.rs" for resource_type in (*PARAMETERS, "Binary"))


def capability_statement(
    held_types: Iterable[str], *, writes: WriteSite, fhir_base: str, token_url: str, date: str
) -> dict[str, Any]:
    """Give the CapabilityStatement: read and search of every type that is known, held or can be created; batch, export.

    Source: FHIR R4 capabilitystatement.html; the oauth-uris extension, SMART App Launch 1.0 conformance.
    """
    types = sorted({*PARAMETERS, *held_types, *writes.creates})
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "software": {"name": "deployr mock EMR"},
        "implementation": {"description": "A mock EMR on loopback, no vendor's product", "url": fhir_base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "extension": [
                        {
                            "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                            "extension": [{"url": "token", "valueUri": token_url}],
                        }
                    ],
                    "service": [
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                                    "code": "SMART-on-FHIR",
                                }
                            ]
                        },
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                                    "code": "Basic",
                                }
                            ]
                        },
                    ],
                },
                "resource": [_resource(resource_type, writes) for resource_type in types],
                "interaction": [{"code": "batch"}],
                "operation": [{"name": "export", "definition": _EXPORT}],
            }
        ],
    }


def smart_configuration(*, token_url: str) -> dict[str, Any]:
    """Give the SMART configuration of a server for backend services.

    Source: SMART App Launch 2.2, conformance.html and backend-services.html.
    """
    return {
        "token_endpoint": token_url,
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": list(SCOPES),
        "capabilities": ["client-confidential-asymmetric", "permission-v2"],
    }


def _operation(name: str, definition: str) -> dict[str, str]:
    return {"name": name, "definition": f"http://hl7.org/fhir/OperationDefinition/{definition}"}


def _resource(resource_type: str, writes: WriteSite) -> dict[str, Any]:
    can_create = resource_type in writes.creates
    return {
        "type": resource_type,
        "interaction": [
            {"code": code} for code in ("read", "search-type", *(["create", "update"] if can_create else []))
        ],
        **(
            {
                "versioning": "versioned-update",
                "updateCreate": False,
                "conditionalCreate": writes.conditional == "honoured",
            }
            if can_create
            else {}
        ),
        **({"operation": [_operation("everything", "Patient-everything")]} if resource_type == "Patient" else {}),
        "searchParam": [
            {"name": name, "type": parameter.kind} for name, parameter in parameters_of(resource_type).items()
        ],
    }
