"""All results of some components: one call, and more only where one answer cannot be the whole of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

import msgspec

from deployr_serve.adapters.epic_client import Meter, VendorClient
from deployr_serve.adapters.epic_components import Component, VendorCodes
from deployr_serve.adapters.epic_facts import ResultComponent, when
from deployr_serve.core.errors import EmrBadResponse, EmrIncomplete
from deployr_serve.core.ports import Budget

PATH = "api/epic/2014/Results/Utility/GETPATIENTRESULTCOMPONENTS/ResultComponents"
MAX_CALLS_BACK = 20
_DAY = timedelta(days=1)

Named = tuple[Component, ResultComponent]


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    """``null`` says that there are none. Source: wire formats document, section 2 [seen]."""

    result_components: tuple[ResultComponent, ...] | None


class ResultComponents:
    """Reads results of one site.

    An answer with as many results as the site gives at the most may have been cut off. It is asked for again in
    halves of the components, and where one component alone is too much, in steps back in time. What cannot be made
    whole so is `EmrIncomplete`.

    A result that does not say what it is of can be told only where one component was asked for. Such a site is found
    out at its first answer, and asked for one component at a time from then on.

    Source: wire formats document, section 2: the request [seen]; several components in one request, by a public
    client of another hospital [secondary]; that the newest come first [secondary], that ``FromInstant`` is where
    looking back starts and is written in UTC, and that both base names and times are as asked, [assumed].
    """

    def __init__(self, client: VendorClient, *, codes: VendorCodes, zone: tzinfo, user: Mapping[str, str]) -> None:
        """``user`` holds UserID and UserIDType, in whose name is read; ``zone`` is the site's."""
        self._client = client
        self._codes = codes
        self._zone = zone
        self._user = user
        self._results_say_what_they_are_of = True

    async def read(
        self,
        patient: Mapping[str, str],
        components: Sequence[Component],
        *,
        since: datetime,
        meter: Meter,
        budget: Budget | None,
    ) -> list[Named]:
        """Give every result of the components from ``since`` on, and perhaps of the day before.

        Args:
            patient: PatientID and PatientIDType.
            components: at least one.
            since: the start of the longest window.
            meter: counts the calls.
            budget: what may be used.

        Raises:
            EmrIncomplete: more results than can be had.
            EmrBadResponse: a result of something that was not asked for, or without a date where dates are needed.
            ServeError: as `VendorClient.post` raises.
        """

        async def ask(some: Sequence[Component], until: datetime | None) -> tuple[ResultComponent, ...]:
            return await self._ask(patient, some, since=since, until=until, meter=meter, budget=budget)

        async def each_of(parts: Sequence[Sequence[Component]]) -> list[Named]:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(whole(part)) for part in parts]
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
            return [named for task in tasks for named in task.result()]

        async def whole(some: Sequence[Component]) -> list[Named]:
            if len(some) > 1 and not self._results_say_what_they_are_of:
                return await each_of([[one] for one in some])
            results = await ask(some, None)
            if len(some) == 1:
                if len(results) >= self._codes.most_results:
                    results = await self._back_in_time(results, lambda until: ask(some, until))
                return [(self._the_one(some[0], result), result) for result in results]
            if len(results) >= self._codes.most_results:
                middle = len(some) // 2
                return await each_of([some[:middle], some[middle:]])
            named = _told_apart(results, some)
            if named is None:
                self._results_say_what_they_are_of = False
                return await whole(some)
            return named

        return await whole(components)

    async def _ask(
        self,
        patient: Mapping[str, str],
        components: Sequence[Component],
        *,
        since: datetime,
        until: datetime | None,
        meter: Meter,
        budget: Budget | None,
    ) -> tuple[ResultComponent, ...]:
        back_to = (self._client.clock.now() if until is None else until) - since
        body: dict[str, Any] = {
            **patient,
            **self._user,
            # One more than the whole days: a site that counts days by the calendar must not lose the first hours.
            "NumberDaysToLookBack": max(back_to // _DAY, 0) + 1,
            "MaxNumberOfResults": self._codes.most_results,
            "FromInstant": "" if until is None else f"{until:%Y-%m-%dT%H:%M:%SZ}",
            "ComponentTypes": [{"Value": component.base_name, "Type": "base-name"} for component in components],
        }
        answer = await self._client.post(PATH, body, answer=_Answer, meter=meter, budget=budget)
        return answer.result_components or ()

    async def _back_in_time(
        self, newest: tuple[ResultComponent, ...], ask: Callable[[datetime], Awaitable[tuple[ResultComponent, ...]]]
    ) -> tuple[ResultComponent, ...]:
        """Ask again from the oldest result on backwards, until an answer is not full.

        The oldest minute of an answer may be cut off in its middle. It is taken from the next answer, which begins
        with it, so that nothing is lost and nothing is there twice.
        """
        found: list[ResultComponent] = []
        page, until = newest, self._client.clock.now() + _DAY
        for _ in range(MAX_CALLS_BACK):
            dated = [(when(result, zone=self._zone), result) for result in page]
            oldest = min((one[0] for one, _ in dated if one), default=until)
            if oldest >= until or any(one is None for one, _ in dated):
                raise EmrIncomplete("expected full answers to reach further back each time, by dated results")
            found += [result for one, result in dated if one and one[0] > oldest]
            until = oldest
            page = await ask(until)
            if until not in {one[0] for result in page if (one := when(result, zone=self._zone))}:
                raise EmrIncomplete("expected the next answer to begin where the full one ended")
            if len(page) < self._codes.most_results:
                return (*found, *page)
        raise EmrIncomplete(f"expected all results of one component in {MAX_CALLS_BACK} full answers")

    def _the_one(self, component: Component, result: ResultComponent) -> Component:
        others = (other for other in self._codes.components if other is not component)
        if not result.names & component.names and any(result.names & other.names for other in others):
            raise EmrBadResponse("expected results of the one component that was asked for")
        return component


def _told_apart(results: Sequence[ResultComponent], components: Sequence[Component]) -> list[Named] | None:
    """Give each result with its component; None where one does not say, or says what nobody asked for."""
    by_name = {name: component for component in components for name in component.names}
    named: list[Named] = []
    for result in results:
        meant = {component.base_name: component for name in result.names if (component := by_name.get(name))}
        if len(meant) != 1:
            return None
        named.append((next(iter(meant.values())), result))
    return named
