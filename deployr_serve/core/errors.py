"""What can go wrong, classed by what the receiver can do about it; each class's reason code is in the glossary.

Messages say what was expected. They never repeat a value that came in: it may be a patient's.
"""

from __future__ import annotations

from typing import ClassVar

from deployr_core.forgetting import FORGOTTEN
from deployr_core.packet import FetchRecord

UNEXPECTED = "unexpected"
"""The reason code of a failure that nobody foresaw, and that has no class here."""


class ServeError(Exception):
    """The root; only its leaves are raised.

    ``fetches``: what had been read from the EMR, or tried, when it was raised; kept as evidence. ``requests``: how many
    were sent to the EMR for the one call that failed, repeats included. ``is_audited``: there is a record of it.
    """

    reason: ClassVar[str] = "error"
    fetches: tuple[FetchRecord, ...] = ()
    requests: int = 0
    is_audited: bool = False


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


class CallerNotAllowed(AskDifferently):
    """The caller has proved who it is, and is none of those who may call here."""

    reason = "caller-not-allowed"


class EventInFuture(AskDifferently):
    """The event has not happened yet, by more than clocks may differ."""

    reason = "event-in-future"


class KeyReused(AskDifferently):
    """The idempotency key was used before, for another request."""

    reason = "idempotency-key-reused"


class MissingPatient(AskDifferently):
    """The document says of nobody, in an identifier that is known here, that it is about them."""

    reason = "missing-patient"


class UnknownPatient(AskDifferently):
    """The EMR knows no patient by this id, or it does not know exactly one."""

    reason = "unknown-patient"


class Forgotten(AskDifferently):
    """What was asked here before was erased on demand; the same request is not answered again."""

    reason = FORGOTTEN


class AmbiguousPatient(AskDifferently):
    """The identifiers lead to several patients, or each to another one. None of them is taken."""

    reason = "ambiguous-patient"


class UnknownContext(AskDifferently):
    """The EMR does not know the encounter or the order that the request names."""

    reason = "unknown-context"


class WrongPatient(AskDifferently):
    """Something that was asked about, or that came back, belongs to another patient. Nothing is scored."""

    reason = "wrong-patient"


class Abstain(ServeError):
    """The EMR answered, and what it gave must not be scored. Not a failure, but the honest answer.

    What a model itself asks for before it scores is decided by `deployr_core.coverage`.
    """


class Restricted(Abstain):
    """The EMR withholds some or all of this record from us; what is left would pass for a short history."""

    reason = "restricted"


class Inconsistent(Abstain):
    """Two sources disagree on who this patient is, such as on the birth date."""

    reason = "inconsistent"


class TryLater(ServeError):
    """The same request may well be answered a little later.

    ``retry_after_s``: how long the other side asked us to wait; None if it did not say.
    """

    retry_after_s: float | None = None


class EmrUnreachable(TryLater):
    """No connection, or the EMR says itself that it is unavailable."""

    reason = "emr-unreachable"


class EmrTimeout(TryLater):
    """The EMR did not answer within the request's budget."""

    reason = "emr-timeout"


class EmrThrottled(TryLater):
    """The EMR asks for fewer requests, or we hold back because it did."""

    reason = "emr-throttled"


class EmrBadResponse(TryLater):
    """The EMR answered something that is not what the specification says: HTML, or half a document."""

    reason = "emr-bad-response"


class EmrTooLarge(TryLater):
    """The EMR's answer passes the limits on bytes, pages or resources, so that it was not read to its end."""

    reason = "emr-too-large"


class EmrIncomplete(TryLater):
    """The EMR gave fewer matches than it counted, or a page that looks cut off. A part is never scored as the whole."""

    reason = "emr-incomplete"


class DeadlinePassed(TryLater):
    """The time was used up before there was a score, or before it was stored: nothing was shown or written."""

    reason = "deadline"


class InProgress(TryLater):
    """The same request is being answered right now, by another call."""

    reason = "in-progress"


class TooManyRequests(TryLater):
    """This caller asks more often than it may; others are answered."""

    reason = "too-many-requests"


class StoreUnavailable(TryLater):
    """The packet could not be stored, so nothing may be shown.

    ``why``: what readiness says for the operator, such as ``throttled``, ``refused`` or ``clock-skew``.
    """

    reason = "store-unavailable"

    def __init__(self, message: str = "", *, why: str = "unavailable") -> None:
        super().__init__(message)
        self.why = why


class PredictorUnavailable(TryLater):
    """The model answers elsewhere, over HTTP, and did not: no connection, no time, or it says so itself."""

    reason = "predictor-unavailable"


class FixSetup(ServeError):
    """Somebody has to change something here before the same request can be answered."""


class EmrRefused(FixSetup):
    """The EMR does not let us: credentials, scopes, or a write that it will not take."""

    reason = "emr-refused"


class InsufficientScope(FixSetup):
    """The EMR granted fewer scopes than the model's features need; seen before anything is asked of it."""

    reason = "insufficient-scope"


class ModelUnavailable(FixSetup):
    """The model is deployed, but its bundle is not what its manifest says or failed its trial, so it was not loaded."""

    reason = "model-unavailable"


class ModelError(FixSetup):
    """The model failed on this row, took too long, or gave something that is not what it promises."""

    reason = "model-error"


class SettingsInvalid(FixSetup):
    """The app does not start with these settings; the message names each of them."""

    reason = "settings-invalid"


class Undelivered(ServeError):
    """Why a score was not sent, or will not be sent again. It stands in the delivery and is never answered."""


class Superseded(Undelivered):
    """A newer score of the same model for the same patient has been sent there already."""

    reason = "superseded"


class Expired(Undelivered):
    """The score was made so long ago that whoever saw it now would take it for a new one."""

    reason = "expired"


class WrongEnvironment(Undelivered):
    """The packet was made in another environment of the EMR than this app writes to."""

    reason = "wrong-environment"


class InvalidScore(Undelivered):
    """What the packet holds is not a score that may be shown: no finite number, or none that this output can carry."""

    reason = "invalid-score"


class OutcomeUnknown(Undelivered):
    """It may have arrived, nobody can say, and sending it again might show it twice."""

    reason = "outcome-unknown"


class EmrDuplicates(Undelivered):
    """The EMR holds several records under this one delivery's identifier: somebody has to look."""

    reason = "emr-duplicates"


class OutputNotOffered(Undelivered):
    """The EMR does not take what this output writes, and no alternative is configured."""

    reason = "output-not-offered"


class RecordChanged(ServeError):
    """Somebody else changed the stored record first; read it again."""

    reason = "record-changed"


class AlertNotTaken(ServeError):
    """Why a sink of alerts did not take a message. It stands in the log and is never answered."""


class AlertUnsent(AlertNotTaken):
    """A sink of alerts did not take a message, or nobody knows; it is sent again by the next look."""

    reason = "alert-unsent"


class AlertRefused(AlertNotTaken):
    """A sink of alerts does not let us in, or will not take what we send."""

    reason = "alert-refused"
