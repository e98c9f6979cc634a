"""False alarms a year, and how soon a real fault is told, of the rules of operation at their defaults.

Four made-up deployments, hour by hour: a clinic on weekdays, a ward around the clock, a small one of four requests a
weekday, and a batch each morning. Days differ by more than chance (a factor with a standard deviation of 20 %), and
failures come in good and bad days. Nothing is wrong in the first table: every alert is a false one.

`python -m benchmarks.alert_alarms` prints both tables; `--years` sets for how long each deployment runs.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np

from deployr_core.monitoring.alert_rules import AlertRules, Rules, rules_with_names
from deployr_core.monitoring.alerting import Entry, What, advance
from deployr_core.monitoring.alerting_operations import OF_MODELS, WEEKS, Calls, HourCount, of_model, week_of
from deployr_core.monitoring.rhythm import HOUR, SLOTS, Rhythm

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FAILED, ABSTAINED, SLOW = 0.005, 0.08, 0.01


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A made-up deployment. ``rate``: packets expected by weekday (Monday 0) and hour."""

    name: str
    rate: Callable[[int, int], float]


PATTERNS = (
    Pattern(name="clinic, weekdays 8 to 18, 120 a day", rate=lambda day, hour: 12.0 * (day < 5 and 8 <= hour < 18)),
    Pattern(
        name="ward, around the clock, 400 a day",
        rate=lambda day, hour: (28.0 if 7 <= hour < 19 else 5.0) * (1.0 if day < 5 else 0.8),
    ),
    Pattern(name="small, 4 a weekday", rate=lambda day, hour: 0.5 * (day < 5 and 9 <= hour < 17)),
    Pattern(name="batch of 60 each morning", rate=lambda _, hour: 60.0 * (hour == 6)),
)


def hours_of(
    pattern: Pattern,
    rng: np.random.Generator,
    days: int,
    *,
    failed: Callable[[datetime, float], float] = lambda _, bad: FAILED * bad,
) -> dict[datetime, HourCount]:
    """Make the hours of so many days; ``failed``: the share of failures at an hour of a day that is so bad, mean 1."""
    found = {}
    for day in range(days):
        busy, bad = rng.gamma(25.0, 1 / 25.0), rng.gamma(4.0, 1 / 4.0)
        for hour in range(24):
            at = START + day * DAY + hour * HOUR
            asked = int(rng.poisson(busy * pattern.rate(day % 7, hour)))
            if asked:
                is_batch = pattern.rate(day % 7, hour) >= 60
                slots = rng.integers(0, 2 if is_batch else SLOTS, asked)
                failures = int(rng.binomial(asked, min(1.0, failed(at, bad))))
                found[at] = HourCount(
                    asked=asked,
                    slots=np.unique(slots).size,
                    answered=asked,
                    failed=failures,
                    abstained=int(rng.binomial(asked - failures, ABSTAINED)),
                    waited=asked,
                    slow=int(rng.binomial(asked, SLOW)),
                )
    return found


def begun(
    hours: Mapping[datetime, HourCount], first: datetime, last: datetime, *, every: timedelta, until: str | None = None
) -> list[tuple[datetime, str]]:
    """Give when which alert begins. A rule alerts here at its first look, so that no false alarm is missed."""
    rules = at_once(Rules())
    entries: Mapping[str, Entry] = {}
    found: list[tuple[datetime, str]] = []
    now, times = first, sorted(hours)
    learnt_on: date | None = None
    week: Rhythm | str = "nothing yet"
    while now < last:
        oldest, newest = bisect_left(times, now - timedelta(weeks=WEEKS, days=1)), bisect_right(times, now - HOUR)
        seen = {at: hours[at] for at in times[oldest:newest]}
        # A packet in the middle of the last whole hour that had any.
        calls = Calls(model="m", hours=seen, last_at=times[newest - 1] + HOUR / 2 if seen else None)
        if learnt_on != now.date():
            learnt_on, week = now.date(), week_of(calls, zone=UTC, now=now)
        findings = tuple(of_model(calls, rules, rhythm=week, deadline_s=8.0, now=now))
        advanced = advance(entries, findings, rules=AlertRules(rules=rules), watched=OF_MODELS, silences=(), now=now)
        entries = advanced.entries
        found += [(now, each.rule) for each in advanced.notices if each.what is What.BEGUN]
        if any(rule == until for _, rule in found):
            break
        now += every
    return found


def at_once(rules: Rules) -> Rules:
    """Give the rules without their waiting time."""
    return msgspec.structs.replace(
        rules,
        **{
            name.replace("-", "_"): msgspec.structs.replace(rule, begin_minutes=0)
            for name, rule in rules_with_names(rules)
        },
    )


def false_alarms(pattern: Pattern, *, years: int, seed: int) -> Counter[str]:
    """Count the alerts of a deployment in which nothing is wrong, after eight weeks to learn from."""
    days = WEEKS * 7 + 365 * years
    hours = hours_of(pattern, np.random.default_rng(seed), days)
    learnt = START + timedelta(weeks=WEEKS)
    return Counter(rule for _, rule in begun(hours, learnt, START + days * DAY, every=HOUR))


def delay(pattern: Pattern, rule: str, *, seed: int) -> timedelta | None:
    """Give how long after a fault on a Tuesday at 10:00 its rule alerts; None within four weeks."""
    fault = START + (WEEKS * 7 + 1) * DAY + 10 * HOUR

    def failed(at: datetime, bad: float) -> float:
        if at < fault or rule == "silence":
            return FAILED * bad
        return 0.25 if rule == "failures" else 0.02 * bad

    hours = hours_of(pattern, np.random.default_rng(seed), WEEKS * 7 + 30, failed=failed)
    if rule == "silence":
        hours = {at: count for at, count in hours.items() if at < fault}
    found = begun(hours, fault, fault + 28 * DAY, every=HOUR / 4 if rule == "silence" else HOUR, until=rule)
    return next((when - fault for when, which in found if which == rule), None)


def below_by_chance(limit: float, *, nights: int, years: int = 400) -> float:
    """Give how often a year a mean of four weeks is ``limit`` standard errors too low for so many nights running."""
    rng = np.random.default_rng(0)
    summed = np.cumsum(np.r_[0.0, rng.normal(size=365 * years + 28)])
    z = (summed[28:] - summed[:-28]) / np.sqrt(28)
    count, fires, clear, is_open = 0, 0, 0, False
    for each in z.tolist():
        fires, clear = (fires + 1, 0) if each < -limit else (0, clear + 1) if each > -limit / 2 else (fires, clear)
        if not is_open and each < -limit and fires >= nights:
            count, is_open = count + 1, True
        is_open = is_open and clear < 2
    return count / years


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--years", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    names = OF_MODELS
    print("| false alarms a year | " + " | ".join(names) + " |")
    for place, pattern in enumerate(PATTERNS):
        found = false_alarms(pattern, years=asked.years, seed=place)
        told = " | ".join(f"{found[name] / asked.years:.2g}" for name in names)
        print(f"| {pattern.name} | {told} |", flush=True)
    for limit, which in ((1.96, "held-out rows without end"), (2.77, "as many held-out rows")):
        told = ", ".join(f"{nights} nights {below_by_chance(limit, nights=nights):.2g}" for nights in (1, 3, 5))
        print(f"AUROC below by chance, times a year, {which}: {told}")
    for rule in ("silence", "failures", "failure-trend"):
        print(f"| told after, {rule} | shortest | longest |")
        for place, pattern in enumerate(PATTERNS):
            delays = [delay(pattern, rule, seed=100 * place + each) for each in range(asked.repeats)]
            known = sorted(each for each in delays if each is not None)
            told = f"{known[0]} | {known[-1]}" if known else "not in four weeks |"
            print(f"| {pattern.name} ({len(known)} of {len(delays)}) | {told} |", flush=True)


if __name__ == "__main__":
    main()
