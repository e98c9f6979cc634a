"""Rows as data: one file each, decoded strictly, so that a misspelt expectation cannot pass unseen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from tests.emulators.scripted_cosmos import Fault

Answer = Literal["OK", "AB", "FS", "RJ", "A401", "START"]
Channel = Literal["J", "B", "H", "M", "O", "T", "L", "W", "D", "S"]


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Rule(_Written, frozen=True, kw_only=True):
    """What the scripted EMR does otherwise, on one route.

    ``route``: a route, or a pattern of routes: discovery, token, score, a resource type, ``Observation?page=2``, or
    ``Observation?count`` where only the number of matches is asked for.
    ``nth``: only this call of the route, counted from 1; ``times``: only the first so many. ``text``, ``json`` or
    ``generate`` replaces the body; ``bundle`` is merged into the searchset that the chart gives, of which ``only``
    keeps some entries, and ``entries`` adds some. ``$next`` in a bundle is the number of the page after this one.
    """

    route: str
    nth: int | None = None
    times: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = {}
    text: str | None = None
    json: Any = msgspec.UNSET
    generate: str | None = None
    merge: Mapping[str, Any] = {}
    bundle: Mapping[str, Any] = {}
    only: tuple[str, ...] | None = None
    entries: tuple[Any, ...] = ()
    wire: Literal["whole", "hang", "drop", "drip", "cut", "short"] = "whole"
    """hang: nothing comes; drop: closed without an answer; drip: a byte now and then; cut: half of a body without
    announced length; short: a body that ends before its announced length."""


class Expect(_Written, frozen=True, kw_only=True):
    """What must come. ``answer`` is a code of the response contract; it implies status, packet and writes.

    ``features``: by name, as stored; ``counts``: of the stored coverage, ``*`` stands for anything, all that fit are
    added up. ``calls``: how often each route was called, ``2``, ``<=3`` or ``>=2``. ``gap_s``: at least so long between
    the first two calls of a route.
    """

    answer: Answer
    reason: str | tuple[str, ...] = ()
    status: int | None = None
    packet: Literal["scored", "abstained", "failed", "rejected", "none"] | None = None
    writes: int | None = None
    features: Mapping[str, float] = {}
    counts: Mapping[str, int | str] = {}
    calls: Mapping[str, int | str] = {}
    gap_s: Mapping[str, float] = {}
    setting: str | None = None
    ready: str | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Give the reason codes of which one must come; none for an answer that has none."""
        return (self.reason,) if isinstance(self.reason, str) else self.reason


class Step(_Written, frozen=True, kw_only=True):
    """One request of a case, to the app of that number.

    Before it ``advance_s`` pass on the app's monotonic clock, the EMR comes to know only the keys ``registered``, and
    takes back its tokens where it is to ``revoke`` them; the ``vault`` comes to hold another key.
    """

    expect: Expect | tuple[Expect, ...]
    request: Mapping[str, Any] = {}
    advance_s: float = 0.0
    registered: tuple[str, ...] | None = None
    revoke: bool = False
    vault: str | None = None
    app: int = 1

    @property
    def expected(self) -> tuple[Expect, ...]:
        """Give the alternatives, of which one must come."""
        return self.expect if isinstance(self.expect, tuple) else (self.expect,)


class Case(_Written, frozen=True, kw_only=True):
    """One way in which things go wrong; all that is not said is healthy.

    ``channel``: where it is another than the row's. ``chart``: by name, what to merge into the healthy chart's
    resources; null leaves one out, ``like`` copies one. ``manifest``: what to merge into the bundle's manifest.
    ``network``: how the EMR is reached. ``apps``: the settings of further apps in the same process. ``at_once``: how
    many different requests are sent together. ``vault``: the key that the vault holds at first. ``jwks``: the ids of
    the keys that we publish, in the end.
    """

    name: str
    channel: Channel | None = None
    settings: Mapping[str, str] = {}
    request: Mapping[str, Any] = {}
    chart: Mapping[str, Any] = {}
    manifest: Mapping[str, Any] = {}
    upstream: tuple[Rule, ...] = ()
    network: Literal[
        "plain", "closed", "no-name", "tls", "tls-self-signed", "tls-expired", "tls-other-host", "tls-1.1"
    ] = "plain"
    apps: tuple[Mapping[str, str], ...] = ()
    own_upstream: bool = False
    at_once: int = 1
    expect: Expect | tuple[Expect, ...] | None = None
    steps: tuple[Step, ...] = ()
    vault: str | None = None
    jwks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.expect is None) == (not self.steps):
            raise ValueError("expected either expect or steps")

    @property
    def asked(self) -> tuple[Step, ...]:
        """Give the steps; a case without them has one."""
        return self.steps or (Step(expect=self.expect or ()),)


class WriteExpect(_Written, frozen=True, kw_only=True):
    """What must have become of the deliveries, in the order of the requests, and what the EMR holds in the end.

    ``states``: of each delivery; ``reason``: of the last one; ``attempts``: of each, if it matters. ``held``: how many
    scores, of whatever kind, came to stand in the EMR. ``value``: of the last one of them, as it is shown.
    ``location``: how what the last delivery keeps of the EMR's ``Location`` begins.
    """

    states: tuple[str, ...]
    held: int
    reason: str | None = None
    attempts: tuple[int, ...] | None = None
    value: str | None = None
    location: str | None = None


class WriteCase(_Written, frozen=True, kw_only=True):
    """One way in which sending a score goes wrong; all that is not said is healthy.

    ``output``: the way out, or several with | between. ``site``: what the EMR lets be written, see
    `mock_emr.written.WriteSite`. ``faults``: what it plays, see `mock_emr.faults.Rule`. ``ask``: the instants that are
    asked about, in this order. ``score``: what is in the packet in place of its score. ``environment``: what the packet
    says in place of its own. ``already``: how many records of this delivery the EMR holds before. ``killed``: the
    worker dies after the EMR has answered and before that is stored. ``relays``: how often what is pending is sent
    again, each time by so many ``relays_at_once``.
    """

    name: str
    expect: WriteExpect
    output: str = "flag"
    settings: Mapping[str, str] = {}
    site: Mapping[str, Any] = {}
    faults: tuple[Mapping[str, Any], ...] = ()
    ask: tuple[str, ...] = ("2015-01-06T20:55:00Z",)
    score: Literal["nan", "inf", "-0.0", "1.5", "none", "numpy"] | None = None
    environment: str | None = None
    already: int = 0
    killed: bool = False
    relays: int = 2
    relays_at_once: int = 1


class WriteRow(_Written, frozen=True, kw_only=True):
    """One row of the fault table that is about sending."""

    number: int
    title: str
    channel: Literal["W"]
    cases: tuple[WriteCase, ...]


class Row(_Written, frozen=True, kw_only=True):
    """One row of the fault table."""

    number: int
    title: str
    channel: Channel
    cases: tuple[Case, ...]


class StoreExpect(_Written, frozen=True, kw_only=True):
    """What must come. ``status``: of the answer while the store fails; ``why``: what readiness shows of it then.

    ``packet``: what stands in the store for the request once the store is well again and what waits has been sent;
    ``writes``: of scores in the EMR then. ``said``: some line of the log. ``partitions``: under how many keys the
    documents of the case's packets lie.
    """

    status: int = 200
    why: str = "ok"
    packet: Literal["scored", "failed"] = "scored"
    writes: int = 1
    said: str | None = None
    partitions: int | None = None


class StoreCase(_Written, frozen=True, kw_only=True):
    """One way in which Azure Cosmos DB fails while a request is answered, and then is well again.

    ``faults``: what goes wrong, see `tests.emulators.scripted_cosmos.Fault`. ``spool``: whether there is one.
    ``passes_s``: on the app's clock until the store is used again. ``at_once``: how many different requests are sent
    together.
    """

    name: str
    expect: StoreExpect
    faults: tuple[Fault, ...] = ()
    settings: Mapping[str, str] = {}
    spool: bool = True
    passes_s: float = 0.0
    at_once: int = 1


class StoreRow(_Written, frozen=True, kw_only=True):
    """One row of the fault table that is about the store."""

    number: int
    title: str
    channel: Literal["S"]
    cases: tuple[StoreCase, ...]


class OutageExpect(_Written, frozen=True, kw_only=True):
    """What must come. ``status``, and over B ``outcome`` and whether it ``advises``: of the answer meanwhile.

    ``waiting``: how many packets are in the spool then; ``ready``: what health shows then; ``said``: some line of the
    log. ``packet``, ``state``, ``writes`` and ``shown``: once the store is back and the relay has run, of each request
    its packet's outcome and its delivery's state, and in all the scores in the EMR and the advisories noted as shown.
    """

    status: int
    waiting: int = 1
    outcome: str | None = None
    advises: bool = False
    ready: tuple[str, ...] = ('"store":"unavailable"',)
    said: str | None = None
    packet: Literal["scored", "none"] = "scored"
    state: str | None = "sent"
    writes: int = 1
    shown: int = 0


class OutageCase(_Written, frozen=True, kw_only=True):
    """One way in which the store is down while requests come, and then is back.

    ``over``: JSON or the CDA-XML channel. ``works``: what the store still does. ``hangs``: it does not answer, where it
    would refuse otherwise. ``spool``: a file, one that is full, one that cannot be opened, or none. ``shows``: the
    channels that may show before it is stored. ``at_once``: how many different requests come together. ``copies``: how
    often what waits is there when it is taken out. ``passes_h``: how long it takes. ``relays``: how often it runs then.
    """

    name: str
    expect: OutageExpect
    over: Literal["J", "B"] = "J"
    works: tuple[str, ...] = ()
    hangs: bool = False
    spool: Literal["file", "full", "down", "none"] = "file"
    shows: str = ""
    at_once: int = 1
    copies: int = 1
    passes_h: float = 0.1
    relays: int = 2
    settings: Mapping[str, str] = {}


class OutageRow(_Written, frozen=True, kw_only=True):
    """One row of the fault table that is about the store being down."""

    number: int
    title: str
    channel: Literal["O"]
    cases: tuple[OutageCase, ...]


class ModelCase(Case, frozen=True, kw_only=True):
    """One way in which a model is not what it should be; over the JSON channel, with a healthy model beside it.

    ``model``: a forest that scores 1 / 2; or what a joblib file holds: an ``estimator`` that scores 1 / 4 and
    ``behaves`` otherwise for the patient, ``code`` that runs when it is loaded, or a ``bomb``. ``spoil``: what is done
    to a file once all is written. ``signed``: by whom the manifest is, where one key is trusted. ``libraries``: what
    the manifest says that it was trained with. ``sings``: the code is to run; otherwise it must not have. ``swap``:
    what is put in the place of the model while it is asked. ``switch``: what is switched off while it is asked.
    """

    model: Literal["forest", "estimator", "code", "bomb"] = "forest"
    behaves: str = "well"
    code: str = ""
    spoil: Mapping[str, Literal["missing", "empty", "cut", "flipped"]] = {}
    signed: Literal["nobody", "ours", "theirs", "before"] | None = None
    libraries: Mapping[str, str] = {}
    sings: bool = False
    swap: Literal["new", "half-copied", "other-name"] | None = None
    switch: Literal["model", "site", "everything"] | None = None


class ModelRow(_Written, frozen=True, kw_only=True):
    """One row of the fault table that is about models."""

    number: int
    title: str
    channel: Literal["M"]
    cases: tuple[ModelCase, ...]


class LabelStep(_Written, frozen=True, kw_only=True):
    """The record after so many hours, and a run over it; then the same run again, which must change nothing.

    ``chart``: as in `Case`. ``label``: what every labelled packet must have come out as, and what its ``history``
    holds; ``not-yet`` where there is none. ``at_once``: how many extractors run together; ``conflicts``: how often
    another one changes a label while this one does. ``said``: some line of the log.
    """

    after_h: float
    label: str = "not-yet"
    history: tuple[str, ...] = ()
    chart: Mapping[str, Any] = {}
    run: Literal["extract", "review"] = "extract"
    at_once: int = 1
    conflicts: int = 0
    said: str | None = None


class LabelCase(_Written, frozen=True, kw_only=True):
    """One way in which an outcome comes to be known, or not.

    ``beside``: packets of the same order that ended otherwise. ``empty``: there is no packet at all. ``standing``: how
    many packets count as what in the end, see `label_extractors.standing.Standing`.
    """

    name: str
    steps: tuple[LabelStep, ...]
    settings: Mapping[str, str] = {}
    upstream: tuple[Rule, ...] = ()
    beside: tuple[Literal["failed", "abstained", "rejected", "received", "silent"], ...] = ()
    empty: bool = False
    standing: Mapping[str, int] = {}


class LabelRow(_Written, frozen=True, kw_only=True):
    """One row of the fault table that is about labels."""

    number: int
    title: str
    channel: Literal["L"]
    cases: tuple[LabelCase, ...]


_AnyRow = Row | WriteRow | StoreRow | OutageRow | ModelRow | LabelRow
_KINDS: Mapping[str, type[_AnyRow]] = {"W": WriteRow, "S": StoreRow, "O": OutageRow, "M": ModelRow, "L": LabelRow}


def read_row(file: Path) -> _AnyRow:
    """Read a row.

    Raises:
        ValueError: the file is not a row; the message names the place.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        row: _AnyRow = msgspec.convert(content, _KINDS.get(content.get("channel"), Row))
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    if not file.name.startswith(f"{row.number:03d}-") or len({case.name for case in row.cases}) != len(row.cases):
        raise ValueError(f"{file.name}: expected the row's number in the name, and each case's name once")
    return row


def channel_of(row: _AnyRow, case: Case | WriteCase | StoreCase | OutageCase | LabelCase) -> Channel:
    """Give the channel that the case is run over."""
    return (case.channel or row.channel) if isinstance(case, Case) else row.channel


def filled_in(written: Any, values: Mapping[str, str]) -> Any:
    """Replace ``$name`` in every text by its value; names that have none stay as they are."""
    match written:
        case str():
            return re.sub(r"\$(\w+)", lambda match: str(values.get(match[1], match[0])), written)
        case Mapping():
            return {key: filled_in(value, values) for key, value in written.items()}
        case list() | tuple():
            return [filled_in(value, values) for value in written]
        case _:
            return written


def merged(target: Any, patch: Any) -> Any:
    """Give ``target`` with the JSON Merge Patch applied. Source: RFC 7396."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
