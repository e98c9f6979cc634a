"""What a CDA document may come wrapped in, and the answer then is: SOAP 1.1 or 1.2, and NoteReader's ProcessDocument.

Source: SOAP 1.1, http://www.w3.org/TR/2000/NOTE-SOAP-20000508/, sections 4 and 6; SOAP 1.2 part 1,
http://www.w3.org/TR/soap12-part1/, section 5 [seen]; ``urn:epic-com:Common.2013.Services`` ProcessDocument: wire
formats document, section 5 [seen for NoteReader, assumed for an alert].
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import Enum
from typing import Any

from deployr_serve.core.errors import MalformedRequest
from deployr_serve.triggers.bpa_xml import MAX_BYTES, element, read_xml, written

_NOTE_READER = "{urn:epic-com:Common.2013.Services}"
_NEXT_ROLES = frozenset(
    {
        "",
        "http://schemas.xmlsoap.org/soap/actor/next",
        "http://www.w3.org/2003/05/soap-envelope/role/next",
        "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver",
    }
)
DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'


class Soap(Enum):
    """A version of SOAP, by the namespace of its envelope."""

    V11 = "http://schemas.xmlsoap.org/soap/envelope/"
    V12 = "http://www.w3.org/2003/05/soap-envelope"

    @property
    def media_type(self) -> str:
        """Give what an answer in it is sent as."""
        return "text/xml" if self is Soap.V11 else "application/soap+xml"

    def named(self, name: str) -> str:
        """Give an element of it by its qualified name."""
        return f"{{{self.value}}}{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrapping:
    """How a document came. ``process_document``: in base64 inside NoteReader's operation."""

    soap: Soap | None = None
    process_document: bool = False

    @property
    def media_type(self) -> str:
        """Give what the answer is sent as."""
        return "application/xml" if self.soap is None else self.soap.media_type


def announced(*, content_type: str, soap_action: str | None) -> Wrapping:
    """Tell from the headers what a document that cannot be read came in."""
    if content_type == Soap.V12.media_type:
        return Wrapping(soap=Soap.V12)
    return Wrapping(soap=None if soap_action is None else Soap.V11)


def wrapping_of(root: Any) -> Wrapping:
    """Tell what the document came in, whatever is wrong with what is inside."""
    soap = next((soap for soap in Soap if root.tag == soap.named("Envelope")), None)
    wrapped = soap is not None and len(root.findall(f"{soap.named('Body')}/{_NOTE_READER}ProcessDocument")) == 1
    return Wrapping(soap=soap, process_document=wrapped)


def unwrap(root: Any, wrapping: Wrapping) -> Any:
    """Give the root of the document itself.

    Raises:
        MalformedRequest: not one document in one body, a header that must be understood, or no base64.
        RequestTooLarge: as for `read_xml`.
    """
    if wrapping.soap is None:
        return root
    soap = wrapping.soap
    for header in root.iterfind(f"{soap.named('Header')}/*"):
        role = header.get(soap.named("actor" if soap is Soap.V11 else "role"), "")
        if header.get(soap.named("mustUnderstand")) in {"1", "true"} and role in _NEXT_ROLES:
            # Who demands that a header be understood must not be answered as if it had been.
            raise MalformedRequest("expected no SOAP header that must be understood; none is read")
    bodies = root.findall(soap.named("Body"))
    if len(bodies) != 1 or len(bodies[0]) != 1:
        raise MalformedRequest("expected one document in one SOAP body")
    inside = bodies[0][0]
    if not wrapping.process_document:
        return inside
    documents = inside.findall(f"{_NOTE_READER}Document")
    if len(documents) != 1:
        raise MalformedRequest("expected one Document in ProcessDocument")
    encoded = "".join((documents[0].text or "").split())
    try:
        return read_xml(base64.b64decode(encoded.encode("ascii"), validate=True))
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedRequest(f"expected a Document of at most {MAX_BYTES} bytes, in base64") from None


def wrap(answer: bytes, wrapping: Wrapping) -> bytes:
    """Put an answer, without its declaration, into what the document came in; give the whole body."""
    if wrapping.soap is None:
        return DECLARATION + answer
    content = answer
    if wrapping.process_document:
        document = element(f"{_NOTE_READER}Document", text=base64.b64encode(DECLARATION + answer).decode())
        result = element(f"{_NOTE_READER}ProcessDocumentResult", document)
        content = written(element(f"{_NOTE_READER}ProcessDocumentResponse", result))
    return _enveloped(content, wrapping.soap)


def fault(detail: str, wrapping: Wrapping) -> bytes:
    """Render a SOAP fault of the sender's; for the strict profile alone. ``detail`` holds nothing that came in."""
    soap = wrapping.soap or Soap.V11
    if soap is Soap.V11:
        parts = [element("faultcode", text="soap:Client"), element("faultstring", text=detail)]
    else:
        value = element(soap.named("Value"), text="soap:Sender")
        text = element(soap.named("Text"), text=detail)
        text.set("{http://www.w3.org/XML/1998/namespace}lang", "en")
        parts = [element(soap.named("Code"), value), element(soap.named("Reason"), text)]
    return _enveloped(written(element(soap.named("Fault"), *parts)), soap)


def _enveloped(content: bytes, soap: Soap) -> bytes:
    name = soap.value.encode()
    # The prefix is bound on the envelope: a fault's code is a qualified name, and is read by it.
    opening = b'<soap:Envelope xmlns:soap="' + name + b'"><soap:Body>'
    return DECLARATION + opening + content + b"</soap:Body></soap:Envelope>"
