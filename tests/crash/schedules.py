"""Seeded schedules of deaths: what is asked, where each worker is killed, and how everything recovers afterwards."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from deployr_serve.adapters.clock import ReplayClock
from deployr_serve.settings import read_settings
from deployr_serve.store_bootstrap import open_store
from tests.crash import site
from tests.crash.emr import WRITES
from tests.crash.evidence import Seen, broken_at_death, broken_in_the_end, look
from tests.crash.keepers import FileKeeper, Keeper
from tests.crash.lane import Lane

OUTPUTS = ("score-column", "flowsheet", "risk-assessment", "in-basket")
LEASES_S, A_DAY_S = 310, 26 * 3600
"""Longer than any lease of a packet, a delivery's place, a batch's run or a message; longer than a label's window."""
_SEED = 20150106
_IMPATIENT_S = 1.5
"""The deadline of workers that may be killed: whoever waits for an answer of one that was waits for so long."""

_A_LIFE_S = (0.05, 0.6)
"""When a worker that nobody stops has begun to do something, and when it is mostly through, in seconds."""

Op = list[Any]
Rounds = list[list[Op]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What workers are there to do; ``asked`` counts the different questions in it."""

    rounds: Rounds
    asked: int
    ward: bool = False
    labelled: bool = False


_RELAY: list[Op] = [["relay_deliveries"]]
_ORDERS: Rounds = [
    [["json", "p1", -10], ["json", "p1", -10], ["json", "p2", -8], ["bpa", "p3", -5]],
    [["json", "p1", -2], ["json", "p1", -2], ["json", "p3", -1], *_RELAY],
]
WORKS: Mapping[str, Work] = {
    "orders": Work(rounds=_ORDERS, asked=5),
    "hooks": Work(rounds=[[["cds", "p1"], ["cds", "p1"], ["json", "p1", -20]], [["cds", "p2"], *_RELAY]], asked=3),
    "ward": Work(rounds=[[["batch_icu"]], [["queue"], ["queue"]]], asked=3, ward=True),
    "labels": Work(
        rounds=[[["json", "p1", -10], ["bpa", "p3", -5]], _RELAY, [["sleep until", A_DAY_S]], [["extract_labels"]]],
        asked=2,
        labelled=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Life:
    """One worker: where it ends.

    At one of our gates, or once the EMR has taken its nth write to a route, or after so many seconds, wherever it is
    then: in the middle of a commit, perhaps.
    """

    gate: str | None = None
    nth: int = 1
    emr_route: str | None = None
    by: str = "SIGKILL"
    after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Generations of workers, one after the other; those of one generation work at the same time.

    ``faults`` are the EMR's, all along; ``store_faults`` are the store's, for each generation, or none at all.
    """

    number: int
    work: Work
    generations: tuple[tuple[Life, ...], ...]
    faults: tuple[Mapping[str, Any], ...] = ()
    store_faults: tuple[tuple[Mapping[str, Any], ...], ...] = ()

    @property
    def is_in_trouble(self) -> bool:
        """Tell whether anything fails besides the workers."""
        return bool(self.faults or self.store_faults)


@dataclass(kw_only=True)
class Tally:
    """What came of schedules."""

    problems: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    repeats: int = 0

    def add(self, other: Tally) -> None:
        """Add another's."""
        self.problems += other.problems
        self.ends += other.ends
        self.outcomes += other.outcomes
        self.repeats += other.repeats

    def told(self) -> str:
        """Say it for people, with how often each end was come to."""
        head = f"\n{dict(self.outcomes)}, {len(self.ends)} distinct ends, {self.repeats} repeats that the EMR knew\n"
        return head + "".join(f"{count:5} {end}\n" for end, count in sorted(self.ends.items()))


class Theatre:
    """Plays schedules on one lane; ``settings`` are the site's. Each schedule has a store of its own."""

    def __init__(self, lane: Lane, settings: Mapping[str, str], *, keeper: Keeper | None = None) -> None:
        self._lane = lane
        self._settings = settings
        self._keeper = keeper or FileKeeper()
        self._stages = 0

    def census(self) -> dict[str, dict[str, int]]:
        """Give by work how often each gate is passed by a worker that nobody kills, or that takes over from nobody."""
        found = {}
        for name, work in WORKS.items():
            stage = self.stage()
            assert self.run(stage, work.rounds) == ["done"], stage.log()
            found[name] = json.loads((stage.folder / "passed").read_text())
        return found

    def play(self, schedule: Schedule, *, mutant: str | None = None) -> Tally:
        """Play one schedule to its end, looking at the evidence after each death and after recovery."""
        work = schedule.work
        stage = self.stage(mutant=mutant)
        self._lane.tell_emr("faults", rules=json.dumps(schedule.faults))
        tally, before = Tally(), None
        for number, lives in enumerate(schedule.generations):
            self._keeper.fail(schedule.store_faults[number] if schedule.store_faults else ())
            ended = self._lane.run(*(stage.worker(work.rounds, life, deadline_s=_IMPATIENT_S) for life in lives))
            tally.outcomes.update(ended)
            if set(ended) - {"killed", "done"}:
                tally.problems.append(f"worker: ended as {ended}\n{stage.log()}")
            before = self.look(stage, tally, before)
            stage.pass_time(LEASES_S)
        self._lane.tell_emr("faults", rules="[]")
        self._keeper.fail(())
        seen = self.recover(stage, work, tally, before, in_trouble=schedule.is_in_trouble)
        tally.repeats = seen.repeats
        ends = stage.folder / "ends"
        tally.ends.update(ends.read_text().splitlines() if ends.exists() else ())
        lives = [life for generation in schedule.generations for life in generation]
        tally.ends.update(f"EMR took {life.emr_route}" for life in lives if life.emr_route)
        tally.ends["any moment"] += sum(life.after_s is not None for life in lives)
        tally.problems = [f"schedule {schedule.number}: {each}" for each in tally.problems]
        return tally

    def recover(
        self,
        stage: Stage,
        work: Work,
        tally: Tally,
        before: Seen | None,
        *,
        rounds: Rounds | None = None,
        in_trouble: bool = False,
    ) -> Seen:
        """Let a worker that nobody kills put everything right; give the evidence afterwards."""
        [ended] = self.run(stage, rounds or recovery(work))
        if ended != "done":
            tally.problems.append(f"recovery: the worker ended as {ended}\n{stage.log()}")
        seen = self.look(stage, tally, before)
        tally.problems += broken_in_the_end(
            seen,
            asked=work.asked,
            outputs=OUTPUTS,
            labelled=work.labelled,
            ward=work.ward,
            in_trouble=in_trouble,
        )
        return seen

    def run(self, stage: Stage, rounds: Rounds, life: Life | None = None) -> list[str]:
        """Let one worker do this, until its end."""
        ended = self._lane.run(stage.worker(rounds, life))
        assert ended in (["done"], ["killed"]), f"{ended}: {stage.log()}"
        return ended

    def put_to_sleep(self, stage: Stage, rounds: Rounds, life: Life) -> str:
        """Let one worker do this until it is stopped at its gate; give ``done`` if it never came there."""
        return self._lane.put_to_sleep(stage.worker(rounds, life))

    def wake(self) -> list[str]:
        """Let what sleeps go on to its end."""
        return self._lane.wake()

    def sleep(self, gate: str, work: Work) -> Tally:
        """Stop a worker at a gate for longer than its leases, let another one do everything, and wake it."""
        stage, tally = self.stage(), Tally()
        tally.outcomes[self.put_to_sleep(stage, work.rounds, Life(gate=gate, by="SIGSTOP"))] += 1
        before = self.look(stage, tally, None)
        stage.pass_time(LEASES_S)
        before = self.recover(stage, work, tally, before)
        tally.outcomes.update(self.wake())
        self.recover(stage, work, tally, self.look(stage, tally, before), rounds=[[["pass", LEASES_S]], _RELAY])
        tally.problems = [f"asleep at {gate}: {each}" for each in tally.problems]
        return tally

    def look(self, stage: Stage, tally: Tally, before: Seen | None) -> Seen:
        """Look at the evidence as it is now, and note what is broken."""
        seen = asyncio.run(stage.look(self._lane.tell_emr("state")))
        tally.problems += broken_at_death(seen, before)
        return seen

    def stage(self, *, mutant: str | None = None) -> Stage:
        """Give an empty one, at an EMR that nothing was written to."""
        self._stages += 1
        folder = self._lane.folder / f"stage{self._stages}"
        folder.mkdir()
        self._lane.tell_emr("fresh")
        site.put_clock(folder / "clock", site.NOW, emr=self._lane.emr)
        for_workers, for_us = self._keeper.make(folder)
        return Stage(
            folder=folder,
            mutant=mutant,
            store=for_us,
            settings={
                **self._settings,
                **for_workers,
                "DEPLOYR_CLOCK_FILE": str(folder / "clock"),
                "DEPLOYR_OUTPUT_EXPIRES_HOURS": "240",
                "AzureWebJobsStorage": f"sqlite:{folder / 'queue.sqlite'}",
            },
        )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one schedule has to itself: a folder with its store, its queue and its clock.

    ``store``: the settings that we look on by. ``mutant``: what is planted.
    """

    folder: Path
    settings: Mapping[str, str]
    store: Mapping[str, str]
    mutant: str | None

    def worker(self, rounds: Rounds, life: Life | None = None, *, deadline_s: float = 8.0) -> dict[str, Any]:
        """Say what a worker is to do, and where it ends."""
        life = life or Life()
        return {
            "folder": str(self.folder),
            "settings": {**self.settings, "DEPLOYR_DEADLINE_S": str(deadline_s)},
            "rounds": rounds,
            "end": {"gate": life.gate, "nth": life.nth, "by": life.by} if life.gate else None,
            "emr_kills_at": (life.emr_route, life.nth) if life.emr_route else None,
            "killed_after_s": life.after_s,
            "mutant": self.mutant,
        }

    def pass_time(self, seconds: float) -> None:
        """Let time go by, for the app and the EMR."""
        clock = self.folder / "clock"
        later = datetime.fromisoformat(clock.read_text()) + timedelta(seconds=seconds)
        site.put_clock(clock, later, emr=self.settings["DEPLOYR_EMR_VENDOR_BASE"])

    def log(self) -> str:
        """Give what the workers complained of last."""
        log = self.folder / "log"
        return log.read_text()[-4000:] if log.exists() else ""

    async def look(self, emr: Mapping[str, Any]) -> Seen:
        """Read the evidence."""
        read = read_settings({**self.settings, **self.store})
        clock = ReplayClock(self.folder / "clock")
        answers = self.folder / "answers"
        said = tuple(json.loads(line) for line in answers.read_text().splitlines()) if answers.exists() else ()
        store = open_store(read.store, clock=clock, deadline_s=30.0)
        try:
            return await look(store, emr, said, now=clock.now())
        finally:
            await store.aclose()


def recovery(work: Work) -> Rounds:
    """Give what heals everything: the relay, whoever asked asks again, the timers fire on, and time goes by."""
    asks = [[op] for ops in work.rounds for op in ops if op[0] in {"json", "bpa", "cds"}]
    wait: Rounds = [[["pass", LEASES_S]]]
    batch: Rounds = [*wait, [["batch_icu"]], [["queue"]]] * 3 if work.ward else []
    labels: Rounds = [[["sleep until", A_DAY_S]], [["extract_labels"]]] if work.labelled else []
    return [*wait, _RELAY, *asks, *batch, *wait, _RELAY, *wait, _RELAY, *labels]


def schedules(census: Mapping[str, Mapping[str, int]], *, count: int) -> list[Schedule]:
    """Give seeded schedules: every gate is somebody's first end before any is twice; what follows falls by chance."""
    draw = np.random.default_rng(_SEED)
    works = sorted(census)
    gates = sorted({gate for passed in census.values() for gate in passed})
    ways: list[tuple[str | None, str | None]] = [(gate, None) for gate in gates]
    ways += [(None, route) for route in WRITES.values()] * 2
    order = [ways[place] for _ in range(count // len(ways) + 1) for place in draw.permutation(len(ways))]
    made = []
    for number, (gate, route) in enumerate(order[:count]):
        work = str(draw.choice([work for work in works if gate is None or gate in census[work]]))
        made.append(_schedule(number, work, Life(gate=gate, emr_route=route), census, draw))
    return made


def _schedule(
    number: int, work: str, first: Life, census: Mapping[str, Mapping[str, int]], draw: np.random.Generator
) -> Schedule:
    gates = sorted(census[work])

    def anywhere() -> Life:
        if draw.random() < 0.2:
            return Life(emr_route=str(draw.choice(list(WRITES.values()))), nth=int(draw.integers(1, 3)))
        if draw.random() < 0.25:
            return Life(after_s=float(draw.uniform(*_A_LIFE_S)))
        gate = str(draw.choice(gates))
        return Life(gate=gate, nth=int(draw.integers(1, census[work][gate] + 1)))

    generations = [[first], *([anywhere()] for _ in range(int(draw.choice(3, p=(0.5, 0.3, 0.2)))))]
    for lives in generations:
        # Where a day goes by, no lease holds: a worker that slept through one is `Theatre.sleep`'s.
        if draw.random() < 0.25 and not WORKS[work].labelled:
            # Another worker is at the same work, and survives or not.
            lives.append(anywhere() if draw.random() < 0.5 else Life())
    faults: Sequence[Mapping[str, Any]] = ()
    if draw.random() < 0.3:
        route = str(draw.choice(["score", "flowsheet", "in-basket", "RiskAssessment"]))
        faults = ({"route": route, "body": "lost", "times": 1},)
    elif draw.random() < 0.2:
        faults = ({"route": "*", "status": 503, "times": int(draw.integers(1, 4))},)
    return Schedule(
        number=number, work=WORKS[work], generations=tuple(tuple(lives) for lives in generations), faults=tuple(faults)
    )


def with_failing_store(planned: Sequence[Schedule]) -> list[Schedule]:
    """Give the same schedules on a Cosmos DB in trouble; in every second one nobody dies, and all goes wrong alone."""
    draw = np.random.default_rng(_SEED + 1)

    def trouble() -> Mapping[str, Any]:
        what = _STORE_FAULTS[int(draw.integers(len(_STORE_FAULTS)))]
        on = str(draw.choice(["create", "replace", "batch", "read", "query"]))
        return {**what, "on": (on,), "after": int(draw.integers(0, 6)), "times": int(draw.integers(1, 4))}

    made = []
    for schedule in planned:
        generations = schedule.generations
        if schedule.number % 2:
            generations = tuple(tuple(Life() for _ in lives) for lives in generations)
        faults = tuple(tuple(trouble() for _ in range(int(draw.integers(1, 4)))) for _ in generations)
        made.append(replace(schedule, generations=generations, store_faults=faults))
    return made


_STORE_FAULTS: tuple[Mapping[str, Any], ...] = (
    {"status": 429, "headers": {"x-ms-retry-after-ms": "5"}},
    {"status": 449},
    {"status": 503},
    {"status": 503, "commits": True},
    {"status": 408, "commits": True},
    {"wire": "drop"},
    {"wire": "drop", "commits": True},
    {"wire": "hang", "commits": True},
)
"""What a Cosmos DB does on a bad day; ``commits``: it did as it was asked, and the answer is what gets lost."""
