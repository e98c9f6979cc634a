"""CDA documents as an alert sends them: the example of docs/bpa.md, with changes, and the settings that read it."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLE = (Path(__file__).parents[1] / "docs" / "bpa-request.xml").read_text(encoding="utf-8")
OID = "2.16.840.1.113883.19"
ROOTS = {
    f"{OID}.1": "FHIR",
    f"{OID}.2": "MRN",
    f"{OID}.3": "FHIR",
    f"{OID}.4": "CSN",
    f"{OID}.5": "FHIR",
    f"{OID}.6": "ORDER",
}
SETTINGS = {"DEPLOYR_BPA_ID_ROOTS": ",".join(f"{root}={id_type}" for root, id_type in ROOTS.items())}
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_PLACES = {
    "patient": r'<id root="[\d.]+\.19\.1" extension="p1"/>',
    "encounter": r'<id root="[\d.]+\.19\.3" extension="e1"/>',
    "order": r'<id root="[\d.]+\.19\.5" extension="o1"/>',
    "time": r'<effectiveTime value="20150106155500-0500"/>',
    "record_target": r"<recordTarget>.*</recordTarget>",
    "entry": r"<entry>.*</entry>",
    "text": r"<text>.*</text>",
    "declaration": r"<\?xml.*?\?>",
    "root": r"<ClinicalDocument [^>]*>",
}


def cda(**changes: str) -> str:
    """Give the example with the XML of some places changed: ``patient=`` its id elements, ``time=``, and so on."""
    text = EXAMPLE
    for place, xml in changes.items():
        text, found = re.subn(_PLACES[place], lambda _, xml=xml: xml, text, count=1, flags=re.DOTALL)
        assert found == 1, place
    return text


def ii(root: int, extension: str) -> str:
    """Give an id element, under one of the example's roots by its last number."""
    return f'<id root="{OID}.{root}" extension="{extension}"/>'


def prefixed(text: str, prefix: str) -> str:
    """Give a document whose elements of the default namespace carry a prefix instead."""
    text = text.replace('xmlns="urn:hl7-org:v3"', f'xmlns:{prefix}="urn:hl7-org:v3"')
    return re.sub(r"<(/?)(?=[A-Za-z])", rf"<\1{prefix}:", text)


def in_soap(text: str, namespace: str = SOAP_11, *, header: str = "") -> str:
    """Give a document in an envelope."""
    inside = re.sub(r"<\?xml.*?\?>", "", text)
    return f'<s:Envelope xmlns:s="{namespace}">{header}<s:Body>{inside}</s:Body></s:Envelope>'
