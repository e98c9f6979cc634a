"""FHIR AuditEvents by IHE's Basic Audit Log Patterns, from audit records. Pure.

An answer follows the pattern PatientRead: somebody was given a document of ours about one patient. Feedback follows
PatientCreate. The patterns are for what went well; refusals and failures have the same shape with another outcome and
no profile. The address that the patterns want of the client is not known here: behind the platform's front end it is
the front end's, and what a header says of it anybody can write. So it says so, by the extension that is for that.

Source: IHE ITI BALP 1.1.4, https://profiles.ihe.net/ITI/BALP [seen]; FHIR R4 AuditEvent,
http://hl7.org/fhir/R4/auditevent.html; DICOM PS3.15 A.5 for the events of operators [secondary].
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from deployr_serve.core.audit import Act, AuditRecord, Ending

AUDIT_SYSTEM = "urn:deployr:audit"
"""The system of a record's id. A server may hold one twice, where an answer was lost."""
PATIENT_HASH_SYSTEM = "urn:deployr:patient-hash"
PACKET_SYSTEM = "urn:deployr:packet"
CALLER_SYSTEM = "urn:deployr:caller"
USER_SYSTEM = "urn:deployr:user"
"""Of whom the caller says that it asks for; a CDS client's is a reference such as ``Practitioner/1``."""
ACT_SYSTEM = "urn:deployr:act"

_BALP = "https://profiles.ihe.net/ITI/BALP"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_SOURCE = {"system": _DICOM, "code": "110153", "display": "Source Role ID"}
_DESTINATION = {"system": _DICOM, "code": "110152", "display": "Destination Role ID"}
_APPLICATION = {"system": _DICOM, "code": "110150", "display": "Application"}
_RECIPIENT = {
    "system": f"{_TERMINOLOGY}/v3-ParticipationType",
    "code": "IRCP",
    "display": "information recipient",
}
_REST = {"system": f"{_TERMINOLOGY}/audit-event-type", "code": "rest", "display": "Restful Operation"}
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_UNKNOWN_NETWORK = {
    "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
}
_DESTROYED = {"system": f"{_TERMINOLOGY}/iso-21089-lifecycle", "code": "destroy"}

_OPERATOR: dict[Act, tuple[str, str, str]] = {
    Act.SWITCH: ("110113", "Security Alert", "U"),
    Act.SILENCE: ("110113", "Security Alert", "U"),
    Act.DELIVERIES: ("110100", "Application Activity", "E"),
    Act.SEND_TEST: ("110106", "Export", "R"),
    Act.MIGRATE: ("110100", "Application Activity", "U"),
    Act.EXPORT: ("110106", "Export", "R"),
    Act.FORGET: ("110110", "Patient Record", "D"),
    Act.PURGE: ("110110", "Patient Record", "D"),
    Act.REGISTRY: ("110100", "Application Activity", "U"),
}
"""DICOM's code and word for each act of an operator, and AuditEvent.action."""


def render_audit_event(record: AuditRecord, *, site: str, environment: str) -> dict[str, Any]:
    """Render one record.

    Args:
        record: what was done.
        site: whose app this is; it stands as the server and as the observer.
        environment: the EMR's environment that it belongs to.
    """
    us = {"identifier": {"value": f"{site}/{environment}"}, "display": "deployr"}
    operator = _OPERATOR.get(record.act)
    event: dict[str, Any] = {"resourceType": "AuditEvent"}
    if operator is None:
        profile = _profile(record)
        if profile is not None:
            event["meta"] = {"profile": [f"{_BALP}/StructureDefinition/{profile}"]}
        event |= {"type": _REST, **_interaction(record), "agent": _agents_of_call(record, us)}
    else:
        code, display, action = operator
        event |= {
            "type": {"system": _DICOM, "code": code, "display": display},
            "subtype": [
                {"system": ACT_SYSTEM, "code": record.act.value},
                *([_DESTROYED] if action == "D" else []),
            ],
            "action": action,
            "agent": _agents_of_operator(record, us),
        }
    event |= {
        "recorded": _instant(record.at),
        "outcome": record.ending.value,
        "outcomeDesc": f"{record.said}: {record.reason}" if record.reason else record.said,
        "source": {
            "site": site,
            "observer": us,
            "type": [{"system": f"{_TERMINOLOGY}/security-source-type", "code": "4", "display": "Application Server"}],
        },
        "entity": _entities(record),
    }
    return event


def _profile(record: AuditRecord) -> str | None:
    if record.ending is not Ending.SUCCESS or not record.patient_hash:
        return None
    return {Act.INFER: "IHE.BasicAudit.PatientRead", Act.FEEDBACK: "IHE.BasicAudit.PatientCreate"}.get(record.act)


def _interaction(record: AuditRecord) -> dict[str, Any]:
    code, action = ("create", "C") if record.act is Act.FEEDBACK else ("read", "R")
    return {
        "subtype": [
            {"system": _INTERACTION, "code": code, "display": code},
            {"system": ACT_SYSTEM, "code": record.act.value},
        ],
        "action": action,
    }


def _agents_of_call(record: AuditRecord, us: dict[str, Any]) -> list[dict[str, Any]]:
    # The roles are of the data: a score flows to the client, feedback from it.
    client, server = (_SOURCE, _DESTINATION) if record.act is Act.FEEDBACK else (_DESTINATION, _SOURCE)
    who = _caller(record)
    agents: list[dict[str, Any]] = [
        {"type": {"coding": [client]}, "who": who, "requestor": not record.user, "network": _UNKNOWN_NETWORK},
        {"type": {"coding": [server]}, "who": us, "requestor": False, "network": _UNKNOWN_NETWORK},
    ]
    if record.user:
        user = {"identifier": {"system": USER_SYSTEM, "value": record.user}}
        agents.append({"type": {"coding": [_RECIPIENT]}, "who": user, "requestor": True})
    return agents


def _agents_of_operator(record: AuditRecord, us: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": {"coding": [_APPLICATION]}, "who": us, "requestor": False},
        {"who": _caller(record), "requestor": True},
    ]


def _caller(record: AuditRecord) -> dict[str, Any]:
    if not record.by:
        return {"display": "not known"}
    return {"identifier": {"system": CALLER_SYSTEM, "value": record.by}}


def _entities(record: AuditRecord) -> list[dict[str, Any]]:
    details = {
        "audit-id": record.audit_id,
        "channel": record.channel,
        "model": record.model_id,
        "model-version": record.model_version,
        "bundle-sha256": record.bundle_sha256,
        **record.details,
    }
    ours: dict[str, Any] = {
        "what": {"identifier": {"system": PACKET_SYSTEM, "value": record.packet_id}}
        if record.packet_id
        else {"identifier": {"system": AUDIT_SYSTEM, "value": record.audit_id}},
        "type": {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": "2", "display": "System Object"},
        "role": {"system": f"{_TERMINOLOGY}/object-role", "code": "3", "display": "Report"},
        "detail": [{"type": name, "valueString": text} for name, text in details.items() if text],
    }
    entities = [ours]
    if record.patient_hash:
        entities.append(
            {
                "what": {
                    "type": "Patient",
                    "identifier": {"system": PATIENT_HASH_SYSTEM, "value": record.patient_hash},
                },
                "type": {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": "1", "display": "Person"},
                "role": {"system": f"{_TERMINOLOGY}/object-role", "code": "1", "display": "Patient"},
            }
        )
    if record.correlation_id:
        entities.append(
            {
                "what": {"identifier": {"value": record.correlation_id}},
                "type": {"system": f"{_BALP}/CodeSystem/BasicAuditEntityType", "code": "XrequestId"},
            }
        )
    return entities


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
