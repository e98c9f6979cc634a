"""What was done with a model's runs, entry after entry, each sealed with the digest of the one before. Pure.

A journal is never changed: what is to be said later is a new entry. Each entry's digest is over all that it says,
the digest of the entry before it included. So an entry that was changed, left out or moved breaks the chain at itself.
Entries that are cut off at the end leave no gap: they are missed where the last digest was told to somebody else, as
every audit record and the marker of a deployed bundle do (`Head`). Whoever can write to the store, and to all those
places, could still forge a whole new chain, for a digest is no signature: where a site has a key for it, each entry is
signed besides. Entries from before there was a key count once somebody has looked them through, and vouches for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from deployr_core.signing import Signature, SignatureInvalid, SigningKey, TrustedKey, sign, verify_signature

SCHEMA_VERSION = 1
GENESIS = "0" * 64
"""What stands for the digest before the first entry."""
LONGEST_WHY = 2_000
"""In characters."""


class Action(StrEnum):
    """What was done.

    ``opened``: a run was asked for, by a schedule, an alarm or a person. ``registered``: a run's bundle became a
    challenger. ``compared``: it was compared with another run on the same rows. ``deployed``: it went live.
    ``rolled-back``: the champion was withdrawn, and the one before it is back. ``exported``: it became the champion of
    another platform. ``vouched``: somebody looked through the unsigned entries before it, and stands up for them.
    ``refused``: somebody tried what they may not.
    """

    OPENED = "opened"
    REGISTERED = "registered"
    COMPARED = "compared"
    APPROVED = "approved"
    REJECTED = "rejected"
    DEPLOYED = "deployed"
    EXPORTED = "exported"
    ROLLED_BACK = "rolled-back"
    RETIRED = "retired"
    VOUCHED = "vouched"
    REFUSED = "refused"


class CheckedItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of the checklist as it stood when somebody approved: what, whether it was met, and in which words."""

    item: str
    passed: bool
    said: str


class Deed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an entry says.

    Args:
        at: when, aware, UTC.
        who: by name, as the registry knows people; ``timer`` where nobody did.
        role: in which role they were allowed to, or tried to; ``app`` where nobody did; empty where they have none.
        action: see `Action`.
        run_id: which run it is about; of ``rolled-back`` the one that is withdrawn. Empty of ``opened``.
        run_sha256: the digest of the run's ``run.json``.
        bundle_sha256: the digest of its bundle.
        deploy_type: ``cloud`` or ``edge``.
        trained_by: who trained it, as the run says; only of ``registered``.
        why: in their own words; nothing about a patient.
        replaces: the run that was the champion until then; of ``compared`` the run that it was compared with; of
            ``rolled-back`` it is the run that is back.
        evidence_sha256: the digest of what was compared.
        checklist: of ``approved``.
        tried: of ``refused``: what they tried.
        reason: of ``refused``: the code of why not, as the glossary has it.

    Raises:
        ValueError: an instant that is not UTC, or nobody.
    """

    at: datetime
    who: str
    role: str
    action: Action
    run_id: str = ""
    run_sha256: str = ""
    bundle_sha256: str = ""
    deploy_type: str = ""
    trained_by: str = ""
    why: str = ""
    replaces: str | None = None
    evidence_sha256: str = ""
    checklist: tuple[CheckedItem, ...] = ()
    tried: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.at.utcoffset() != timedelta(0):
            raise ValueError("expected an instant in UTC")
        if not self.who:
            raise ValueError("expected who did it")
        if len(self.why) > LONGEST_WHY:
            raise ValueError(f"expected a reason of at most {LONGEST_WHY} characters")


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a journal had come: its last entry's number, from 1, and digest. Kept elsewhere, it tells of losses."""

    number: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256}"


class Entry(Deed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deed in its place: ``number`` from 1, the digest of the entry before it, and its own.

    ``signature``: over its digest, and so over all before it; where a site has no key, it is not there at all.
    """

    schema_version: int = SCHEMA_VERSION
    model_id: str
    number: int
    previous_sha256: str
    sha256: str
    signature: Signature | msgspec.UnsetType = msgspec.UNSET

    @property
    def head(self) -> Head:
        """Give how far the journal has come with this entry."""
        return Head(number=self.number, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalKeys:
    """The keys of a site's journals. ``signing``: what entries are signed with; None signs none.

    ``trusted``: whose signatures count; with any, an entry has to be signed by one of them.
    """

    signing: SigningKey | None = None
    trusted: tuple[TrustedKey, ...] = ()


NO_KEYS = JournalKeys()


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Where a journal stops being what was written: the first entry that is wrong, and how."""

    number: int
    said: str


class JournalBroken(ValueError):
    """The journal is not what was written, or says what cannot have happened; the message names the first entry."""

    def __init__(self, fault: Fault, *, model_id: str = "") -> None:
        where = f"journal of {model_id}, entry" if model_id else "entry"
        super().__init__(f"{where} {fault.number}: {fault.said}")
        self.fault = fault


def chained(deed: Deed, *, model_id: str, last: Entry | None, key: SigningKey | None = None) -> Entry:
    """Give a deed as the entry that follows ``last``, signed where there is a key; None begins the journal."""
    fields = {name: getattr(deed, name) for name in Deed.__struct_fields__}
    number, previous = (1, GENESIS) if last is None else (last.number + 1, last.sha256)
    entry = Entry(**fields, model_id=model_id, number=number, previous_sha256=previous, sha256="")
    entry = msgspec.structs.replace(entry, sha256=digest_of(entry))
    return entry if key is None else msgspec.structs.replace(entry, signature=sign(_signed_bytes(entry), key))


def digest_of(entry: Entry) -> str:
    """Give the SHA-256, in hex, of an entry's canonical bytes: its JSON in order of names, its own digest empty.

    The signature is over the digest, and so no part of it.
    """
    unsealed = msgspec.structs.replace(entry, sha256="", signature=msgspec.UNSET)
    return hashlib.sha256(msgspec.json.encode(unsealed, order="sorted")).hexdigest()


def entry_bytes(entry: Entry) -> bytes:
    """Give an entry as it is stored."""
    return msgspec.json.encode(entry, order="sorted")


def parse_entry(content: bytes, *, number: int) -> Entry:
    """Read a stored entry; that it can be read says nothing about whether it is right.

    Args:
        content: as it is stored.
        number: which one it is by its place, for the message.

    Raises:
        JournalBroken: it cannot be read.
    """
    try:
        return msgspec.json.decode(content, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise JournalBroken(Fault(number=number, said="expected an entry that can be read")) from None


def verify(
    entries: Sequence[Entry], *, model_id: str, heads: Iterable[Head] = (), keys: Sequence[TrustedKey] = ()
) -> Fault | None:
    """Find the first entry that is not what was written; None if all are.

    Args:
        entries: in the order in which they are stored.
        model_id: whose journal it is.
        heads: how far it had come, as others were told; what was cut off at the end is missed by these alone.
        keys: with any, each entry must be signed by one of them, or be vouched for by a later one that is.
    """
    previous = GENESIS
    for number, entry in enumerate(entries, start=1):
        if entry.number != number:
            said = f"expected entry {number}, got entry {entry.number}: one is missing, or they were moved"
            return Fault(number=number, said=said)
        if entry.model_id != model_id:
            return Fault(number=number, said="expected an entry of this model's journal, got another model's")
        if entry.previous_sha256 != previous:
            said = "expected the digest of the entry before it: that one was replaced, or this one was moved here"
            return Fault(number=number, said=said)
        if entry.sha256 != digest_of(entry):
            return Fault(number=number, said="expected the digest of what it says: it was changed")
        previous = entry.sha256
    faults = (_missed(entries, heads), _unsigned(entries, keys) if keys else None)
    return min((each for each in faults if each is not None), key=lambda fault: fault.number, default=None)


def _unsigned(entries: Sequence[Entry], keys: Sequence[TrustedKey]) -> Fault | None:
    lacking: Fault | None = None
    for entry in entries:
        if isinstance(entry.signature, msgspec.UnsetType):
            ids = ", ".join(key.key_id for key in keys)
            said = (
                f"expected a signature by the site's key ({ids}); if the entry is from before there was one: look the"
                " journal through, then `deployr models vouch`"
            )
            lacking = lacking or Fault(number=entry.number, said=said)
            continue
        try:
            verify_signature(_signed_bytes(entry), entry.signature, keys, of="entry")
        except SignatureInvalid as error:
            return lacking or Fault(number=entry.number, said=str(error))
        if entry.action is Action.VOUCHED:
            lacking = None
    return lacking


def _signed_bytes(entry: Entry) -> bytes:
    # Begun so, it can be taken for nothing else that is signed: a manifest or a run's record is an object of JSON.
    return b"deployr journal entry " + entry.sha256.encode()


def _missed(entries: Sequence[Entry], heads: Iterable[Head]) -> Fault | None:
    at_least: Mapping[int, str] = {entry.number: entry.sha256 for entry in entries}
    faults = []
    for head in heads:
        if head.number not in at_least:
            said = f"expected {head.number} entries, as was told when the last of them was written, got {len(entries)}"
            faults.append(Fault(number=len(entries) + 1, said=said))
        elif at_least[head.number] != head.sha256:
            said = "expected the digest that was told when it was written: the journal was written anew here or earlier"
            faults.append(Fault(number=head.number, said=said))
    return min(faults, key=lambda fault: fault.number, default=None)
