"""What the rules of operation find in counts by the hour: silence, failures, abstentions, latency, volume, queues."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from deployr_core.monitoring.alert_rules import (
    Evaluator,
    GivenUp,
    Latency,
    Rules,
    Share,
    Silence,
    Trend,
    Volume,
    Waiting,
)
from deployr_core.monitoring.alerting import FEW, Finding, Verdict, counted, share_of
from deployr_core.monitoring.control_charts import (
    Counted,
    Reference,
    binomial_tail,
    chance_of_so_many,
    laney_sigma,
    p_prime_limits,
    poisson_head,
    poisson_tail,
    reference_of,
    smoothed,
    steadied,
)
from deployr_core.monitoring.rhythm import HOUR, Hour, Rhythm, hour_start, rhythm_of

OF_MODELS = ("silence", "failures", "failure-trend", "abstentions", "abstention-trend", "latency", "volume")
OF_SITE = ("deliveries-given-up", "deliveries-waiting", "spool", "evaluator")
WEEKS = 8
"""How far back hours are kept and learnt from."""

_DAY = timedelta(days=1)
_WINDOWS = (1, 3, 6, 12, 24, 72)
_REFERENCE_DAYS = 28
_FEWEST_DAYS = 7
_TREND_DAYS = 14
_SLOW = 0.05
"""The share of answers beyond the 95th percentile."""
_NOT_RARE = 0.01
"""A look that chance makes 1 in 100 times or more often is clear."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HourCount:
    """One model's packets of one hour, by what became of them.

    ``asked``: all of them. ``answered``: scored, abstained or failed, but for what was switched off. ``waited``: of
    the answered, those that somebody waited for; ``slow``: of these, beyond the latency rule's limit.
    """

    asked: int = 0
    slots: int = 0
    answered: int = 0
    failed: int = 0
    abstained: int = 0
    waited: int = 0
    slow: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """What is known of one model's calls.

    ``hours``: by the start of the hour, UTC, of the last `WEEKS` weeks; an hour that is not there had none.
    ``last_at``: when the last packet was asked for; None if never. ``is_off``: switched off, so that silence is right.
    """

    model: str
    hours: Mapping[datetime, HourCount]
    last_at: datetime | None
    is_off: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Queues:
    """What waits, or was given up, at the whole site.

    ``given_up``: when, by output. ``oldest_pending``: since when the delivery that waits longest does, by output; None
    where nothing waits.
    ``spooled_at``: since when the oldest packet in the spool waits. ``is_losing``: the spool cannot keep packets.
    ``last_runs``: when each of the two evaluators ran last.
    """

    given_up: Mapping[str, Sequence[datetime]] = field(default_factory=dict)
    oldest_pending: Mapping[str, datetime | None] = field(default_factory=dict)
    spooled_at: datetime | None = None
    has_spool: bool = False
    is_losing: bool = False
    last_runs: Mapping[str, datetime] = field(default_factory=dict)


TIMER, NIGHTLY = "timer", "nightly"


def week_of(calls: Calls, *, zone: tzinfo, now: datetime) -> Rhythm | str:
    """Give the week of a model in the site's zone, or why it is not known; it changes little from one day to the next.

    It is learnt without the last day: what is looked at must not be part of what it is held against.
    """
    asked = {start: Hour(packets=each.asked, slots=each.slots) for start, each in calls.hours.items()}
    return rhythm_of(asked, zone=zone, end=now - _DAY)


def of_model(
    calls: Calls, rules: Rules, *, rhythm: Rhythm | str, deadline_s: float, now: datetime
) -> Iterator[Finding]:
    """Give a finding for each rule about one model's calls.

    Args:
        calls: what is known of them.
        rules: the model's.
        rhythm: the model's week, see `week_of`.
        deadline_s: the site's, in seconds.
        now: aware.
    """

    def finding(rule: str, found: tuple[Verdict, str]) -> Finding:
        return Finding(rule=rule, model=calls.model, verdict=found[0], said=found[1])

    yield finding("silence", _silence(calls, rhythm, rules.silence, now=now))
    for name, rule, trend, hits in (
        ("failure", rules.failures, rules.failure_trend, lambda each: each.failed),
        ("abstention", rules.abstentions, rules.abstention_trend, lambda each: each.abstained),
    ):
        days = _days(calls, hits, now=now)
        yield finding(f"{name}s", _share(calls, days, hits, rule, now=now))
        yield finding(f"{name}-trend", _trend(days, trend))
    yield finding("latency", _latency(calls, rules.latency, deadline_s=deadline_s, now=now))
    yield finding("volume", _volume(calls, rhythm, rules.volume, now=now))


def of_site(queues: Queues, rules: Rules, *, evaluator: str, now: datetime) -> Iterator[Finding]:
    """Give a finding for each rule about what waits, and about both evaluators, of which ``evaluator`` runs."""
    for output, instants in sorted(queues.given_up.items()):
        yield _given_up(output, instants, rules.deliveries_given_up, now=now)
    for output, since in sorted(queues.oldest_pending.items()):
        yield _waiting("deliveries-waiting", output, since, rules.deliveries_waiting, now=now)
    if queues.has_spool:
        yield _spool(queues, rules.spool, now=now)
    yield from evaluators(queues.last_runs, rules.evaluator, running=evaluator, now=now)


def of_store(*, is_there: bool) -> Finding:
    """Give the finding about the store itself."""
    said = "It answers." if is_there else "It does not answer."
    return Finding(rule="store", model="", verdict=Verdict.CLEAR if is_there else Verdict.FIRING, said=said)


def _silence(calls: Calls, rhythm: Rhythm | str, rule: Silence, *, now: datetime) -> tuple[Verdict, str]:
    last = calls.last_at
    if calls.is_off:
        return Verdict.CLEAR, "It is switched off."
    if last is None:
        return Verdict.UNKNOWN, "No request has ever come."
    silent = now - last
    since = f"No request for {_span(silent)}, since {last.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if rule.longest_hours is not None:
        limit = f"; declared are at most {rule.longest_hours:g} hours."
        return (Verdict.FIRING if silent > rule.longest_hours * HOUR else Verdict.CLEAR), since + limit
    if isinstance(rhythm, str):
        return Verdict.UNKNOWN, f"Its week is not known: {rhythm}."
    expected, longest = rhythm.slots_between(last, now), rhythm.longest(rule.false_alarms_per_year)
    if expected <= longest or silent < timedelta(minutes=rule.least_minutes):
        return Verdict.CLEAR, f"{since}; that is not unusual at these hours."
    usual = rhythm.until(last, longest)
    by = "" if usual is None else f", until {usual.astimezone(UTC):%Y-%m-%d %H:%M} UTC at the latest"
    return Verdict.FIRING, (
        f"{since}; at these hours of the week requests in {expected:.0f} stretches of five minutes were to be expected,"
        f" and at most {longest:.0f} may stay empty{by}."
    )


def _share(
    calls: Calls, days: Sequence[Counted], hits: Callable[[HourCount], int], rule: Share, *, now: datetime
) -> tuple[Verdict, str]:
    found = _window(calls, lambda each: Counted(hits=hits(each), of=each.answered), rule.least_packets, now=now)
    if found is None:
        return Verdict.UNKNOWN, f"Fewer than {FEW} answers in {_WINDOWS[-1]} hours."
    hours, here = found
    # The last day is left out already; of a longer window its other days.
    earlier = days[: len(days) - max(0, math.ceil(hours / 24) - 1)]
    past = [day for day in earlier[-_REFERENCE_DAYS:] if day.of]
    is_known = len(past) >= _FEWEST_DAYS
    # Without a past, whatever a site would want to be told of is what it is held against.
    before = reference_of(past) if is_known else Reference(mean=rule.least_share, spread=1.0, of=0)
    chance = chance_of_so_many(here, before)
    usually = "there is no past to compare with yet"
    if is_known:
        _, most = p_prime_limits(before, here.of)
        usually = f"in the weeks before {100 * before.mean:.1f} %, and by chance up to {100 * most:.1f} %"
    said = f"In the last {_hours(hours)} {share_of(here.hits, here.of)}; {usually}."
    if here.share >= rule.least_share and chance < rule.chance:
        return Verdict.FIRING, said
    return (Verdict.CLEAR if chance > _NOT_RARE or here.share < rule.least_share / 2 else Verdict.BETWEEN), said


def _trend(days: Sequence[Counted], rule: Trend) -> tuple[Verdict, str]:
    lately = [day for day in days[-_TREND_DAYS:] if day.of >= rule.least_packets]
    past = [day for day in days[-_TREND_DAYS - _REFERENCE_DAYS : -_TREND_DAYS] if day.of >= rule.least_packets]
    if len(past) < 2 * _FEWEST_DAYS or len(lately) < _FEWEST_DAYS:
        return Verdict.UNKNOWN, (
            f"Fewer than {_FEWEST_DAYS} days of {rule.least_packets} answers lately, or than {2 * _FEWEST_DAYS} before."
        )
    before = reference_of(past)
    usual = [steadied(day, before.mean) for day in past]
    centre, spread = sum(usual) / len(usual), max(1.0, laney_sigma(usual))
    *_, (mean, error) = smoothed([(steadied(day, before.mean) - centre) / spread for day in lately], weight=rule.weight)
    # The centre is known no better than the mean of so many days.
    error = math.sqrt(error**2 + 1 / len(past))
    hits, of = sum(day.hits for day in lately), sum(day.of for day in lately)
    rise = hits / of - before.mean
    said = f"In {len(lately)} days lately {share_of(hits, of)}; in the weeks before {100 * before.mean:.1f} %."
    if mean > rule.width * error and rise >= rule.least_rise:
        return Verdict.FIRING, said
    return (Verdict.CLEAR if mean < rule.width * error / 2 else Verdict.BETWEEN), said


def _latency(calls: Calls, rule: Latency, *, deadline_s: float, now: datetime) -> tuple[Verdict, str]:
    found = _window(calls, lambda each: Counted(hits=each.slow, of=each.waited), rule.least_packets, now=now)
    if found is None:
        return Verdict.UNKNOWN, f"Fewer than {FEW} answers in {_WINDOWS[-1]} hours that somebody waited for."
    hours, here = found
    limit = rule.of_deadline * deadline_s
    said = f"In the last {_hours(hours)} {share_of(here.hits, here.of)} took over {limit:.1f} s; 5 % may."
    chance = binomial_tail(here.hits, here.of, _SLOW)
    if chance < rule.chance:
        return Verdict.FIRING, said
    return (Verdict.CLEAR if chance > _NOT_RARE else Verdict.BETWEEN), said


def _volume(calls: Calls, rhythm: Rhythm | str, rule: Volume, *, now: datetime) -> tuple[Verdict, str]:
    if calls.is_off:
        return Verdict.CLEAR, "It is switched off."
    if isinstance(rhythm, str):
        return Verdict.UNKNOWN, f"Its week is not known: {rhythm}."
    end = hour_start(now)
    start = end - _DAY
    expected = rhythm.packets_between(start, end)
    came = sum(each.asked for at, each in calls.hours.items() if start <= at < end)
    said = f"{counted(came)} requests in 24 hours; such hours have {expected:,.0f}."
    if expected < rule.least_expected:
        return Verdict.UNKNOWN, said
    # As in a share's tail: packets that come in heaps are worth less than one each.
    worth = rhythm.packet_spread
    few = poisson_head(math.ceil(came / worth), expected / worth) if came < expected / rule.times else 1.0
    many = poisson_tail(math.floor(came / worth), expected / worth) if came > expected * rule.times else 1.0
    if min(few, many) < rule.chance:
        return Verdict.FIRING, said
    return Verdict.CLEAR if min(few, many) == 1.0 else Verdict.BETWEEN, said


def _given_up(output: str, instants: Sequence[datetime], rule: GivenUp, *, now: datetime) -> Finding:
    lately = sum(now - each <= rule.hours * HOUR for each in instants)
    return Finding(
        rule="deliveries-given-up",
        model="",
        part=output,
        verdict=Verdict.FIRING if lately >= max(rule.at_least, 1) else Verdict.CLEAR,
        said=f"{counted(lately)} given up in the last {_hours(rule.hours)}.",
    )


def _waiting(rule_name: str, part: str, since: datetime | None, rule: Waiting, *, now: datetime) -> Finding:
    if since is None:
        return Finding(rule=rule_name, model="", part=part, verdict=Verdict.CLEAR, said="Nothing waits.")
    waits = now - since
    return Finding(
        rule=rule_name,
        model="",
        part=part,
        verdict=Verdict.FIRING if waits > timedelta(minutes=rule.longest_minutes) else Verdict.CLEAR,
        said=f"The oldest has waited for {_span(waits)}; {rule.longest_minutes} minutes are usual at most.",
    )


def _spool(queues: Queues, rule: Waiting, *, now: datetime) -> Finding:
    if queues.is_losing:
        said = "The spool cannot be read or written: packets are lost."
        return Finding(rule="spool", model="", verdict=Verdict.FIRING, said=said)
    return _waiting("spool", "", queues.spooled_at, rule, now=now)


def evaluators(last_runs: Mapping[str, datetime], rule: Evaluator, *, running: str, now: datetime) -> Iterator[Finding]:
    """One that never ran may not be set up, and is not waited for; the one that runs is there."""
    for name, longest in ((TIMER, timedelta(minutes=rule.timer_minutes)), (NIGHTLY, rule.nightly_hours * HOUR)):
        passed = timedelta() if name == running else now - last_runs[name] if name in last_runs else None
        if passed is not None:
            yield Finding(
                rule="evaluator",
                model="",
                part=name,
                verdict=Verdict.FIRING if passed > longest else Verdict.CLEAR,
                said=f"It ran last {_span(passed)} ago.",
            )


def _window(
    calls: Calls, count: Callable[[HourCount], Counted], least: int, *, now: datetime
) -> tuple[int, Counted] | None:
    """Give the shortest window that holds ``least``, in hours, and what it holds.

    Else the longest one, since five of five that fail say enough; None if that holds too little to be told of. The hour
    that is under way counts as far as it has come, beside the whole ones.
    """
    this_hour = hour_start(now)
    found = None
    for length in _WINDOWS:
        some = [count(calls.hours.get(this_hour - back * HOUR, HourCount())) for back in range(length + 1)]
        here = Counted(hits=sum(each.hits for each in some), of=sum(each.of for each in some))
        found = (length, here)
        if here.of >= max(least, FEW):
            return found
    return found if found is not None and found[1].of >= FEW else None


def _days(calls: Calls, hits: Callable[[HourCount], int], *, now: datetime) -> list[Counted]:
    """Give what each 24 hours had, up to a day ago, in order of time: the last day is what is looked at."""
    length = _REFERENCE_DAYS + _TREND_DAYS
    start = hour_start(now) - _DAY - length * _DAY
    found, of = [0] * length, [0] * length
    for at, each in calls.hours.items():
        day = (at - start) // _DAY
        if 0 <= day < length:
            found[day] += hits(each)
            of[day] += each.answered
    return [Counted(hits=each, of=total) for each, total in zip(found, of, strict=True)]


def _hours(hours: float) -> str:
    return "hour" if hours == 1 else f"{hours:g} hours"


def _span(span: timedelta) -> str:
    minutes = max(0, round(span / timedelta(minutes=1)))
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes / 60:.1f} hours" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
