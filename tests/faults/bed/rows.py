"""Rows as data: one file each, decoded strictly, so that a misspelt expectation cannot pass unseen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

Answer = Literal["OK", "AB", "FS", "RJ", "A401", "START"]
Channel = Literal["J", "B", "H", "T", "L", "W", "D"]


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
    """

    states: tuple[str, ...]
    held: int
    reason: str | None = None
    attempts: tuple[int, ...] | None = None
    value: str | None = None


class WriteCase(_Written, frozen=True, kw_only=True):
    """One way in which sending a score goes wrong; all that is not said is healthy.

    ``output``: the way out, or several with | between. ``site``: what the EMR lets be written, see
    `mock_emr.written.WriteSite`. ``faults``: what it plays, see `mock_emr.faults.Rule`. ``ask``: the instants that are
    asked about, in this order. ``score``: what is in the packet in place of its score. ``environment``: what the packet
    says in place of its own. ``already``: how many records of this delivery the EMR holds before. ``killed``: the
    worker dies after the EMR has answered and before that is stored. ``relays``: how often what is pending is sent
    again.
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


def read_row(file: Path) -> Row | WriteRow:
    """Read a row.

    Raises:
        ValueError: the file is not a row; the message names the place.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        row: Row | WriteRow = msgspec.convert(content, WriteRow if content.get("channel") == "W" else Row)
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    if not file.name.startswith(f"{row.number:03d}-") or len({case.name for case in row.cases}) != len(row.cases):
        raise ValueError(f"{file.name}: expected the row's number in the name, and each case's name once")
    return row


def channel_of(row: Row | WriteRow, case: Case | WriteCase) -> Channel:
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
