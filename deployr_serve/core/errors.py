"""What can go wrong, classed by what the receiver can do about it; each class's reason code is in the glossary.

Messages say what was expected. They never repeat a value that came in: it may be a patient's.
"""

from __future__ import annotations

from typing import ClassVar

UNEXPECTED = "unexpected"
"""The reason code of a failure that nobody foresaw, and that has no class here."""


class ServeError(Exception):
    """The root; only its leaves are raised."""

    reason: ClassVar[str] = "error"


class AskDifferently(ServeError):
    """The request cannot be answered as it is; repeating it will not help."""


class MalformedRequest(AskDifferently):
    """A field is missing, misspelt or not what it must be."""

    reason = "malformed-request"


class UnsupportedMediaType(AskDifferently):
    """The body is of a type that this route does not read."""

    reason = "unsupported-media-type"


class RequestTooLarge(AskDifferently):
    """The body is larger than any honest request."""

    reason = "request-too-large"


class UnknownModel(AskDifferently):
    """No such model here; the answer is the same whether it never existed or is not for this caller."""

    reason = "unknown-model"


class EventInFuture(AskDifferently):
    """The event has not happened yet, by more than clocks may differ."""

    reason = "event-in-future"


class KeyReused(AskDifferently):
    """The idempotency key was used before, for another request."""

    reason = "idempotency-key-reused"


class UnknownPatient(AskDifferently):
    """The EMR knows no patient by this id, or it does not know exactly one."""

    reason = "unknown-patient"


class UnknownContext(AskDifferently):
    """The EMR does not know the encounter or the order that the request names."""

    reason = "unknown-context"


class WrongPatient(AskDifferently):
    """Something that was asked about, or that came back, belongs to another patient. Nothing is scored."""

    reason = "wrong-patient"


class TryLater(ServeError):
    """The same request may well be answered a little later."""


class EmrUnreachable(TryLater):
    """No connection, or the EMR says itself that it is unavailable."""

    reason = "emr-unreachable"


class EmrTimeout(TryLater):
    """The EMR did not answer within the request's budget."""

    reason = "emr-timeout"


class EmrBadResponse(TryLater):
    """The EMR answered something that is not what the specification says: HTML, half a document, an incomplete page."""

    reason = "emr-bad-response"


class InProgress(TryLater):
    """The same request is being answered right now, by another call."""

    reason = "in-progress"


class StoreUnavailable(TryLater):
    """The packet could not be stored, so nothing may be shown."""

    reason = "store-unavailable"


class FixSetup(ServeError):
    """Somebody has to change something here before the same request can be answered."""


class EmrRefused(FixSetup):
    """The EMR does not let us: credentials, scopes, or a write that it will not take."""

    reason = "emr-refused"


class ModelUnavailable(FixSetup):
    """The model is deployed, but its bundle is not what its manifest says, so it was not loaded."""

    reason = "model-unavailable"


class ModelError(FixSetup):
    """The model failed on this row, or gave something that is not a probability."""

    reason = "model-error"


class SettingsInvalid(FixSetup):
    """The app does not start with these settings; the message names each of them."""

    reason = "settings-invalid"


class RecordChanged(ServeError):
    """Somebody else changed the stored record first; read it again."""

    reason = "record-changed"
