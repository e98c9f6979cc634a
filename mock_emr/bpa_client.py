"""The EMR's side of an alert that sends CDA: writes the document about an order, sends it, reads the advisory.

Source: CDA R2; the header as a vendor's own documents have it, wire-formats.md section 5 [seen]; where the order
stands, and the answer, wire-formats.md section 6, which is the bridge's own contract.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lxml import etree

from mock_emr.cds_client import Reply, Send
from mock_emr.dates import interval_of
from mock_emr.elements import child, codings, reference_text
from mock_emr.vendor_patients import unit_of

CDA = "urn:hl7-org:v3"
ADVISORY = "urn:deployr:bpa:1"
Wrapping = Literal["plain", "soap-1.1", "soap-1.2", "notereader"]

_SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
_SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_NOTEREADER = "urn:epic-com:Common.2013.Services"
_OID = "2.16.840.1.113883.19"
_LOINC = "2.16.840.1.113883.6.1"
_MEDIA_TYPES: Mapping[Wrapping, str] = {
    "plain": "application/xml",
    "soap-1.1": "text/xml; charset=utf-8",
    "soap-1.2": "application/soap+xml; charset=utf-8",
    "notereader": "text/xml; charset=utf-8",
}


@dataclass(frozen=True, kw_only=True)
class Roots:
    """The roots that this site's ids stand under."""

    patient: str = f"{_OID}.1"
    encounter: str = f"{_OID}.3"
    order: str = f"{_OID}.5"
    provider: str = f"{_OID}.8"
    department: str = f"{_OID}.9"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What fires an alert: an order as FHIR has it, the encounter that it is of, who signed it and when (aware)."""

    order: Mapping[str, Any] = field(repr=False)
    encounter: Mapping[str, Any] | None = field(repr=False)
    provider: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """What the service advises; ``is_advised`` false comes with nothing else.

    ``reasons`` are (feature, contribution, words), ``acknowledge_reasons`` (code, words).
    """

    is_advised: bool
    packet_id: str | None = None
    headline: str = ""
    detail: str = ""
    score: str | None = None
    threshold: str | None = None
    reasons: tuple[tuple[str, str, str], ...] = ()
    acknowledge_reasons: tuple[tuple[str, str], ...] = ()


class BpaClient:
    """Calls the alert services of one provider.

    Args:
        base: the provider's, without ``/api/bpa``.
        login: user and password for HTTP Basic; None calls without.
        send: reaches the provider.
        roots: the roots of the ids that are sent.
    """

    def __init__(
        self, base: str, *, login: tuple[str, str] | None = None, send: Send, roots: Roots | None = None
    ) -> None:
        self._base = base.rstrip("/")
        self._send = send
        self._roots = roots or Roots()
        self._headers: dict[str, str] = {}
        if login is not None:
            self._headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()

    async def fire(self, service: str, alert: Alert, *, wrapping: Wrapping = "plain") -> Reply:
        """Send the document about an order to a model or group."""
        body = wrapped(document(alert, roots=self._roots), wrapping)
        headers = {**self._headers, "Content-Type": _MEDIA_TYPES[wrapping]}
        return await self._send("POST", f"{self._base}/api/bpa/{service}", headers, body)

    async def acknowledge(self, packet_id: str, *, at: datetime, reason: str | None = None) -> Reply:
        """Report that an advisory was acknowledged, and with which reason."""
        said = {"packetId": packet_id, "at": at.isoformat(), **({} if reason is None else {"reason": reason})}
        headers = {**self._headers, "Content-Type": "application/json"}
        return await self._send("POST", f"{self._base}/api/bpa/acknowledgements", headers, json.dumps(said).encode())


def document(alert: Alert, *, roots: Roots) -> bytes:
    """Write the CDA document about an order: who it is about, which encounter, which order, when, who asks."""
    when = f"{alert.at:%Y%m%d%H%M%S%z}"
    patient_id = _id_in(alert.order.get("subject"))
    root = etree.Element(f"{{{CDA}}}ClinicalDocument", nsmap={None: CDA})
    _add(root, "realmCode", code="US")
    _add(root, "typeId", root="2.16.840.1.113883.1.3", extension="POCD_HD000040")
    _add(root, "id", root=f"{_OID}.100", extension=f"alert-{alert.order['id']}")
    _add(root, "code", code="34133-9", codeSystem=_LOINC, displayName="Summarization of Episode Note")
    _add(root, "title").text = "Order signed"
    _add(root, "effectiveTime", value=when)
    _add(root, "confidentialityCode", code="N", codeSystem="2.16.840.1.113883.5.25")
    _add(root, "languageCode", code="en-US")
    patient_role = _add(_add(root, "recordTarget"), "patientRole")
    _add(patient_role, "id", root=roots.patient, extension=patient_id)
    author = _add(root, "author")
    _add(author, "time", value=when)
    _add(_add(author, "assignedAuthor"), "id", root=roots.provider, extension=alert.provider)
    custodian = _add(_add(_add(root, "custodian"), "assignedCustodian"), "representedCustodianOrganization")
    _add(custodian, "id", root=f"{_OID}.200")
    if alert.encounter is not None:
        encompassing = _add(_add(root, "componentOf"), "encompassingEncounter")
        _add(encompassing, "id", root=roots.encounter, extension=str(alert.encounter["id"]))
        began = child(alert.encounter, "period").get("start")
        low = {"nullFlavor": "NI"} if began is None else {"value": f"{interval_of(str(began)).low:%Y%m%d%H%M%S%z}"}
        _add(_add(encompassing, "effectiveTime"), "low", **low)
        facility = _add(_add(encompassing, "location"), "healthCareFacility")
        _add(facility, "id", root=roots.department, extension=unit_of(alert.encounter))
    body = _add(_add(root, "component"), "structuredBody")
    section = _add(_add(body, "component"), "section")
    _add(section, "code", code="18776-5", codeSystem=_LOINC, displayName="Plan of Treatment")
    _add(section, "title").text = "Order"
    ordered = _add(_add(section, "entry"), "observation", classCode="OBS", moodCode="RQO")
    _add(ordered, "id", root=roots.order, extension=str(alert.order["id"]))
    loincs = [code for system, code in codings(alert.order.get("code")) if system == "http://loinc.org"]
    _add(ordered, "code", **({"code": loincs[0], "codeSystem": _LOINC} if loincs else {"nullFlavor": "OTH"}))
    _add(ordered, "statusCode", code="active")
    written: bytes = etree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return written


def wrapped(cda: bytes, wrapping: Wrapping) -> bytes:
    """Put a document into the envelope that it travels in.

    Source: SOAP 1.1 and 1.2, document/literal; ProcessDocument of NoteReader, wire-formats.md section 5 [seen].
    """
    if wrapping == "plain":
        return cda
    namespace = _SOAP_12 if wrapping == "soap-1.2" else _SOAP_11
    envelope = etree.Element(f"{{{namespace}}}Envelope", nsmap={"s": namespace})
    body = etree.SubElement(envelope, f"{{{namespace}}}Body")
    if wrapping == "notereader":
        process = etree.SubElement(body, f"{{{_NOTEREADER}}}ProcessDocument", nsmap={None: _NOTEREADER})
        etree.SubElement(process, f"{{{_NOTEREADER}}}Document").text = base64.b64encode(cda).decode()
    else:
        body.append(_parsed(cda))
    written: bytes = etree.tostring(envelope, encoding="UTF-8", xml_declaration=True)
    return written


def advisory_in(body: bytes) -> Advisory:
    """Read the answer, in whatever envelope it comes.

    Raises:
        ValueError: it is no advisory of version 1.
    """
    root = _parsed(body)
    inside = root.find(f".//{{{_NOTEREADER}}}Document")
    if inside is not None:
        root = _parsed(base64.b64decode(inside.text or ""))
    found = next(root.iter(f"{{{ADVISORY}}}AdvisoryResponse"), None)
    outcome = None if found is None else _text(found, "Outcome")
    if found is None or found.get("version") != "1" or outcome not in {"advise", "none"}:
        raise ValueError("expected an AdvisoryResponse of version 1 that advises or does not")
    if outcome == "none":
        return Advisory(is_advised=False)
    reasons = found.iterfind(f"{{{ADVISORY}}}Reasons/{{{ADVISORY}}}Reason")
    acknowledge = found.iterfind(f"{{{ADVISORY}}}AcknowledgeReasons/{{{ADVISORY}}}Reason")
    return Advisory(
        is_advised=True,
        packet_id=_text(found, "PacketId"),
        headline=_text(found, "Headline") or "",
        detail=_text(found, "Detail") or "",
        score=_text(found, "Score"),
        threshold=_text(found, "Threshold"),
        reasons=tuple((one.get("feature", ""), one.get("contribution", ""), one.text or "") for one in reasons),
        acknowledge_reasons=tuple((one.get("code", ""), one.text or "") for one in acknowledge),
    )


def _id_in(reference: object) -> str:
    return (reference_text(reference) or "").rpartition("/")[2]


def _add(parent: Any, name: str, **attributes: str) -> Any:
    return etree.SubElement(parent, f"{{{CDA}}}{name}", attributes)


def _parsed(text: bytes) -> Any:
    """Parse without fetching or expanding anything.

    Raises:
        ValueError: it is no XML.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise ValueError("expected an XML document") from error


def _text(parent: Any, name: str) -> str | None:
    found = parent.find(f"{{{ADVISORY}}}{name}")
    return None if found is None else found.text
