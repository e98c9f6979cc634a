"""Documents from a FHIR server: DocumentReference says which there are, its attachment or a Binary what is in them.

Nothing is fetched from anywhere but the server's own ``Binary``: what an attachment names elsewhere is refused. Each
document is checked to be about the patient, by the DocumentReference and by what the Binary says of itself, and its
bytes against the size and the hash that the attachment gives. Neither ids nor bytes leave this module but for scoring.

Source: FHIR R4 documentreference.html, binary.html and datatypes.html#Attachment, http://hl7.org/fhir/R4/ [seen].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from urllib.parse import urljoin

import msgspec

from deployr_core.document_columns import Document, Unusable
from deployr_core.document_reading import DocumentUnreadable
from deployr_core.documents import DocumentGroup, Documents
from deployr_core.keyed_hash import keyed_hash
from deployr_core.packet import FetchRecord
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.auth import Credentials
from deployr_serve.adapters.fhir_about import all_at_once, read_about
from deployr_serve.adapters.fhir_elements import codes_of, instants_of, local_id
from deployr_serve.adapters.fhir_page import R4
from deployr_serve.adapters.fhir_plan import Search, at_or_after, search_token
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.http import Response, origin
from deployr_serve.adapters.lent_token import LentToken
from deployr_serve.adapters.scopes import DOCUMENTS, require_scopes
from deployr_serve.core.documents import FetchedDocuments
from deployr_serve.core.errors import EmrBadResponse, EmrTooLarge, ModelUnavailable, ServeError, WrongPatient
from deployr_serve.core.ports import Budget

_ID = r"(?=[^/]*[A-Za-z0-9])[A-Za-z0-9\-.]{1,64}"
"""As FHIR has it, but for dots alone, which a client resolves on its way."""
_BINARY = re.compile(rf"Binary/({_ID}(?:/_history/{_ID})?)\Z", re.ASCII)
_UNFINISHED = frozenset({"preliminary", "entered-in-error"})
_FHIR_JSON = frozenset({"application/fhir+json", "application/json", "application/json+fhir"})
_AROUND = 64_000
"""How many bytes may stand around a Binary's content in its JSON."""


class _Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    content_type: str = ""
    data: str | None = None
    url: str | None = None
    size: int | None = None
    hash: str | None = None

    def __repr__(self) -> str:
        return "<_Attachment>"

    @property
    def kind(self) -> str:
        return _kind(self.content_type)


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    attachment: _Attachment


class _Reference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A DocumentReference, as far as it is read."""

    id: str
    status: str | None = None
    doc_status: str | None = None
    type: wire.CodeableConcept | None = None
    category: tuple[wire.CodeableConcept, ...] = ()
    date: str | None = None
    content: tuple[_Content, ...] = ()

    def __repr__(self) -> str:
        return "<_Reference>"


class _Binary(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="resourceType", tag="Binary"):
    content_type: str = ""
    security_context: wire.Reference | None = None
    data: str = ""

    def __repr__(self) -> str:
        return "<_Binary>"


_Came = dict[str, Sequence[Document | Unusable]]
_reference = msgspec.json.Decoder(_Reference)
_binary = msgspec.json.Decoder(_Binary)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dated:
    """A document that could be scored; sorted by when it became known, then by id."""

    known_at: datetime
    reference: _Reference = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asking:
    """For whom, with what, and what it has cost so far."""

    patient_id: str = field(repr=False)
    as_of: datetime
    budget: Budget | None
    credentials: Credentials | None
    records: list[FetchRecord] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class FhirDocuments:
    """See `deployr_serve.core.documents.DocumentSource`.

    Args:
        client: the server.
        id_key: what documents and their bytes are hashed with.
        zone: the site's, for dates that carry none.
        credentials: the client's own; what they are granted is compared with what is needed. None knows of none.
    """

    def __init__(
        self, client: FhirClient, *, id_key: bytes, zone: tzinfo = UTC, credentials: Credentials | None = None
    ) -> None:
        self._client = client
        self._key = id_key
        self._zone = zone
        self._credentials = credentials

    async def fetch(
        self, patient_id: str, documents: Documents, *, as_of: datetime, budget: Budget | None, token: str | None
    ) -> FetchedDocuments:
        """Search every group at once, then read what is wanted; the first failure ends the others."""
        if self._client.version is not R4:
            raise ModelUnavailable("expected FHIR R4, where documents are read from")
        lent = None
        if token is not None:
            lent = LentToken(token=token, origins=frozenset({origin(self._client.base)}))
        granting = lent or self._credentials
        if granting is not None:
            require_scopes(await granting.granted(budget=budget), DOCUMENTS)
        asking = _Asking(patient_id=patient_id, as_of=as_of, budget=budget, credentials=lent)
        came: _Came = {}
        try:
            await all_at_once(*(self._group(group, asking, came) for group in documents.groups))
        except ServeError as error:
            error.fetches = (*asking.records, *error.fetches)
            raise
        return FetchedDocuments(
            came=came,
            fetches=tuple(asking.records),
            dropped=dict(asking.dropped),
            oldest_answer_s=max(asking.ages_s),
        )

    async def _group(self, group: DocumentGroup, asking: _Asking, came: _Came) -> None:
        since = asking.as_of - timedelta(days=group.lookback_days)
        narrowed = (("type", group.types), ("category", group.categories))
        search = Search(
            resource_type="DocumentReference",
            parameters=(
                ("patient", asking.patient_id),
                ("status", "current"),
                *((name, ",".join(search_token(*code) for code in codes)) for name, codes in narrowed if codes),
                ("date", at_or_after(since)),
            ),
        )
        found = await self._client.search(
            search, name=group.name, budget=asking.budget, credentials=asking.credentials, whole=True
        )
        asking.records.append(found.record)
        asking.ages_s.append(found.age_s)
        dated = read_about(
            found,
            wire.Whole,
            lambda each: self._dated(each, group, asking, since=since),
            patient_id=asking.patient_id,
            fhir_base=self._client.base,
            dropped=asking.dropped,
        )
        latest = sorted(dated, key=lambda each: (each.known_at, each.reference.id), reverse=True)[: group.most]
        read: dict[int, Document | Unusable] = {}

        async def read_one(place: int, each: _Dated) -> None:
            read[place] = await self._document(each, group, asking)

        await all_at_once(*(read_one(place, each) for place, each in enumerate(latest)))
        came[group.name] = [read[place] for place in range(len(latest))]

    def _dated(self, resource: wire.Whole, group: DocumentGroup, asking: _Asking, *, since: datetime) -> _Dated | None:
        """Give the document if it could be scored: what a server found that was not asked for is left out."""
        try:
            reference = _reference.decode(resource.body)
        except msgspec.MsgspecError:
            # Its message may repeat a part of the record.
            raise EmrBadResponse("expected DocumentReference resources as FHIR writes them") from None
        if resource.kind != "DocumentReference":
            raise EmrBadResponse("expected DocumentReference resources")
        types = set(codes_of(reference.type))
        categories = {code for concept in reference.category for code in codes_of(concept)}
        if (group.types and not types & set(group.types)) or (
            group.categories and not categories & set(group.categories)
        ):
            return None
        if reference.status != "current" or reference.doc_status in _UNFINISHED:
            asking.dropped[f"{group.name}.not_final"] += 1
            return None
        if reference.date is None:
            asking.dropped[f"{group.name}.no_date"] += 1
            return None
        at, known_at = instants_of(reference.date, self._zone)
        if not (since <= at and known_at < asking.as_of):
            return None
        return _Dated(known_at=known_at, reference=reference)

    async def _document(self, dated: _Dated, group: DocumentGroup, asking: _Asking) -> Document | Unusable:
        reference = dated.reference
        offered = (each.attachment for each in reference.content)
        chosen = next((each for each in offered if each.kind in group.content_types), None)
        if chosen is None:
            return Unusable(why="other_type")
        if chosen.size is not None and chosen.size > group.max_bytes:
            return Unusable(why="too_large")
        try:
            if chosen.data is not None:
                content, charset = _from_base64(chosen.data), _charset(chosen.content_type)
            else:
                content, charset = await self._from_binary(chosen, reference.id, group, asking)
            _check(content, chosen, group)
        except DocumentUnreadable as error:
            return Unusable(why=error.why)
        return Document(
            content=content,
            content_type=chosen.kind,
            charset=charset,
            known_at=dated.known_at,
            document_hash=keyed_hash(self._key, "document", reference.id)[:32],
            content_hash=keyed_hash(self._key, "document-content", hashlib.sha256(content).hexdigest())[:32],
        )

    async def _from_binary(
        self, attachment: _Attachment, document_id: str, group: DocumentGroup, asking: _Asking
    ) -> tuple[bytes, str]:
        """Give the bytes, and their charset where it is said."""
        if attachment.url is None:
            raise DocumentUnreadable("no_content")
        binary = self._binary_of(attachment.url)
        if binary is None:
            raise DocumentUnreadable("elsewhere")
        try:
            response, record = await self._client.binary(
                binary,
                name=group.name,
                most_bytes=group.max_bytes * 4 // 3 + _AROUND,
                budget=asking.budget,
                credentials=asking.credentials,
            )
        except EmrTooLarge as error:
            asking.records.extend(error.fetches)
            raise DocumentUnreadable("too_large") from None
        asking.records.append(record)
        if response is None:
            raise DocumentUnreadable("missing")
        context, said, content = _said(response)
        self._insist(context, document_id, asking.patient_id)
        if _kind(said) != attachment.kind:
            raise DocumentUnreadable("other_type")
        return content, _charset(said) or _charset(attachment.content_type)

    def _binary_of(self, url: str) -> str | None:
        """Give the id, perhaps with a version, of a Binary of this very server; None for whatever else a URL names."""
        base = f"{self._client.base}/"
        whole = urljoin(base, url)
        match = _BINARY.match(whole[len(base) :]) if whole.startswith(base) else None
        return None if match is None else match[1]

    def _insist(self, context: str | None, document_id: str, patient_id: str) -> None:
        """Return unless the Binary says that it belongs to another patient, or to another document.

        Source: FHIR R4 binary.html, securityContext and the header X-Security-Context.
        """
        for kind, expected in (("Patient", patient_id), ("DocumentReference", document_id)):
            named = local_id(context or "", kind, fhir_base=self._client.base)
            if named is not None and named != expected:
                raise WrongPatient("expected a Binary of the patient and of the document that were asked about")


def _said(response: Response) -> tuple[str | None, str, bytes]:
    """Give whose a Binary is by its own account, its content type, and its bytes.

    Raises:
        EmrBadResponse: JSON that is no Binary.
        DocumentUnreadable: its content is no base64.
    """
    if response.content_type.lower() not in _FHIR_JSON:
        said = response.headers.get("content-type", response.content_type)
        return response.headers.get("x-security-context"), said, response.body
    try:
        binary = _binary.decode(response.body)
    except msgspec.MsgspecError:
        # Its message may repeat a part of the document.
        raise EmrBadResponse("expected a Binary as FHIR writes it") from None
    context = binary.security_context.reference if binary.security_context else None
    return context, binary.content_type, _from_base64(binary.data)


def _check(content: bytes, attachment: _Attachment, group: DocumentGroup) -> None:
    """Return if the bytes are as they were announced, and no more than allowed.

    Raises:
        DocumentUnreadable: they are not.
    """
    if len(content) > group.max_bytes:
        raise DocumentUnreadable("too_large")
    if attachment.size is not None and attachment.size != len(content):
        raise DocumentUnreadable("size_differs")
    if attachment.hash is not None:
        # SHA-1 is what FHIR announces by; it is no protection here, only a check.
        digest = hashlib.sha1(content, usedforsecurity=False).digest()
        if digest != _from_base64(attachment.hash):
            raise DocumentUnreadable("hash_differs")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DocumentUnreadable("not_base64") from None


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _charset(content_type: str) -> str:
    named = re.search(r";\s*charset=\"?([A-Za-z0-9_-]+)", content_type, re.IGNORECASE)
    return named[1] if named else ""
