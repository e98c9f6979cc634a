"""The tables of docs/capacity.md, and its picture: from a measurement and the plan, so that neither is written by hand.

`python -m benchmarks.capacity_page` writes them anew from benchmarks/scale_out.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.capacity import Figures, Hospital, Limit, Plan, breaks_at, limits, packet_ru, plan
from benchmarks.scale_hosts import COSMOS, EMR, HOSTS, QUEUES
from benchmarks.scale_results import Kept, a_host_second, read_kept

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PLOT = DOCS / "capacity.md", DOCS / "capacity.svg"
SIZES = (10, 100, 1_000)
_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#5f6368"


def write_page(kept: Kept, *, page: Path = PAGE, plot: Path = PLOT) -> None:
    """Put the tables into the page, each in its place, and draw the limits."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), tables(kept)), encoding="utf-8")
    draw(Hospital(), figures_of(kept), plot)


def figures_of(kept: Kept) -> Figures:
    """Take the plan's figures from a measurement; of several numbers of hosts the dearest counts."""
    one, several = kept.orders
    return Figures(
        first_ms=max((house.most or house.calm).processor_ms[HOSTS] for house in kept.houses),
        further_ms=(several.processor_ms - one.processor_ms) / (several.models - one.models),
        packet_ru=packet_ru(one.calls),
        searches=kept.houses[0].emr_calls - 1,
        writes=1.0,
        memory_mb=max(house.memory_mb for house in kept.houses),
        idle_cores=max(house.idle_s[HOSTS] / house.hosts for house in kept.houses),
        batch_ms=max(house.batch.processor_ms[HOSTS] for house in kept.houses),
    )


def with_tables(text: str, made: Mapping[str, str]) -> str:
    """Give a page with these tables in the places that are marked ``<!-- NAME -->`` to ``<!-- end of NAME -->``.

    Raises:
        ValueError: a table has no such place.
    """
    for name, table in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"expected a place for {name}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
    return text


def tables(kept: Kept) -> dict[str, str]:
    """Give the page's tables by the names of their places."""
    hospital, figures = Hospital(), figures_of(kept)
    return {
        "measured": _table(_measured(kept)) + _taken(kept),
        "calls": _table(_calls(kept)),
        "figures": _table(_figures(figures), left=1),
        "formula": _formula(plan(100, hospital, figures), hospital, figures),
        "plan": _table(_plan([plan(size, hospital, figures) for size in (1, *SIZES)])),
        "limits": _table(_limits(hospital, figures), left=1),
        "first": "".join(f"- {line}\n" for line in _first(hospital, figures)),
    }


def _measured(kept: Kept) -> Iterator[Sequence[str]]:
    houses = kept.houses
    yield "", *(f"{each.hosts} host{'s' * (each.hosts > 1)}" for each in houses)
    yield "packets wanted", *(f"{each.wanted:,}" for each in houses)
    yield "lost; stored or written twice", *(f"{each.lost}; {each.twice}" for each in houses)
    yield "hosts killed; packets taken over from them", *(f"{each.kills}; {each.taken_over}" for each in houses)
    yield "scores that the EMR was sent again, and knew by their id", *(str(each.sent_again) for each in houses)
    yield "ten requests a second: p50, p95, ms", *(f"{each.calm.p50_ms:.0f}, {each.calm.p95_ms:.0f}" for each in houses)
    most = [each.most or each.calm for each in houses]
    yield "32 under way: scores a second, this machine", *(f"{each.a_second:.0f}" for each in most)
    yield "**scores for a second of the hosts' processor time**", *(f"{a_host_second(each):.0f}" for each in most)
    for kind, name in ((HOSTS, "hosts"), (COSMOS, "stand-in for Cosmos DB"), (EMR, "EMR"), (QUEUES, "Azurite")):
        yield f"processor time of a score, ms: {name}", *(f"{each.processor_ms[kind]:.1f}" for each in most)
    yield (
        "while hosts are killed: p95, slowest, s",
        *(f"{each.killed.p95_ms / 1000:.1f}, {each.killed.slowest_ms / 1000:.1f}" for each in houses),
    )
    slot = houses[0].batch
    yield (
        f"a slot of {slot.patients} patients: chunks; of these twice on the queue",
        *(f"{each.batch.chunks}; {each.batch.put_twice}" for each in houses),
    )
    yield (
        "its patients a second; ms of the hosts' for each",
        *(f"{each.batch.a_second:.0f}; {each.batch.processor_ms[HOSTS]:.0f}" for each in houses),
    )
    yield "memory of a host, MB", *(f"{each.memory_mb:.0f}" for each in houses)


def _taken(kept: Kept) -> str:
    how = "did other things as well: times are too long, and so is all that is reckoned from them below" * kept.was_busy
    how = how or "did nothing else"
    return f"\nTaken on {kept.cores} cores, at a load of {kept.load_before:.1f} before: the machine {how}.\n"


def _calls(kept: Kept) -> Iterator[Sequence[str]]:
    yield "call", *(f"an order, {each.models} model{'s' * (each.models > 1)}" for each in kept.orders), "bytes sent"
    for name in kept.orders[0].calls:
        yield name, *(f"{each.calls[name]:g}" for each in kept.orders), f"{kept.orders[0].sent_bytes[name]:,.0f}"
    yield "processor time, ms", *(f"{each.processor_ms:.1f}" for each in kept.orders), ""


def _figures(figures: Figures) -> Iterator[Sequence[str]]:
    yield "figure", "value", "from"
    yield "`first`: processor time of an order's first model", f"{figures.first_ms:.1f} ms", "the dearest above"
    yield "`more`: of each further model", f"{figures.further_ms:.1f} ms", "orders of one and of four models"
    yield "`RU`: of a packet, its label included", f"{figures.packet_ru:.0f} RU", "the calls, by the rules of the store"
    yield (
        "calls of the EMR",
        f"{figures.searches:.0f} an order, {figures.writes:.0f} a packet",
        "the mock EMR's journal",
    )
    yield "memory of a host", f"{figures.memory_mb:.0f} MB", "above"
    yield "a host that nobody asks", f"{figures.idle_cores * 100:.1f} % of a core", "five seconds of it"
    yield "a patient of a batch, one model", f"{figures.batch_ms:.0f} ms", "above; chunks come twice there"


def _formula(at: Plan, hospital: Hospital, figures: Figures) -> str:
    order_ms = figures.first_ms + (hospital.models - 1) * figures.further_ms
    lines = (
        f"orders    = {at.hospitals:.0f} · {hospital.beds:.0f} · {hospital.orders_a_bed:.0f} / 86,400 s"
        f" = {at.orders:.1f} a second",
        f"busy      = {at.orders:.1f} · {hospital.busiest_hour} = {at.orders_busy:.1f}",
        f"peak      = {at.orders_busy:.1f} + 4 · √({at.orders_busy:.1f} · {hospital.together}) = {at.orders_peak:.0f}",
        f"packets   = {at.orders_peak:.0f} · {hospital.models} = {at.packets_peak:,.0f} in the busiest second",
        f"order     = {figures.first_ms:.1f} + {hospital.models - 1} · {figures.further_ms:.1f} = {order_ms:.0f} ms",
        f"cores     = {at.orders_peak:.0f} · {order_ms:.0f} ms = {at.cores:.1f}",
        f"instances = {at.cores:.1f} / 0.6 = {at.instances}",
        f"RU/s      = {at.packets_peak:,.0f} · {figures.packet_ru:.0f} = {at.ru_peak:,.0f}",
        f"storage   = {at.packets:.1f} · 86,400 s · 365 · 7.8 kB = {at.tb_a_year:.1f} TB a year",
    )
    return "```\n" + "".join(f"{line}\n" for line in lines) + "```\n"


def _plan(plans: Sequence[Plan]) -> Iterator[Sequence[str]]:
    yield "hospitals", *(f"**{at.hospitals:,.0f}**" for at in plans)
    yield "beds", *(f"{at.beds:,.0f}" for at in plans)
    yield (
        "orders a second: mean, busiest hour, busiest second",
        *(f"{at.orders:,.1f}, {at.orders_busy:,.1f}, {at.orders_peak:,.0f}" for at in plans),
    )
    yield (
        "packets a second: mean, busiest second",
        *(f"{_short(at.packets)}, {_short(at.packets_peak)}" for at in plans),
    )
    yield "packets a day, million", *(f"{at.packets * 86_400 / 1e6:,.2f}" for at in plans)
    yield "cores busy in the busiest second", *(_short(at.cores) for at in plans)
    yield "**instances** of one core and 2 GB, 60 % busy", *(f"**{at.instances:,}**" for at in plans)
    yield "memory that they use, GB", *(f"{at.memory_gb:,.1f}" for at in plans)
    yield "**RU/s**: mean, busiest second", *(f"{at.ru:,.0f}, **{at.ru_peak:,.0f}**" for at in plans)
    yield (
        "store, TB a year; physical partitions after it",
        *(f"{_short(at.tb_a_year)}; {at.partitions:,}" for at in plans),
    )
    yield "RU/s to provision then: 100 for each partition, or the peak", *(f"{at.ru_provisioned:,.0f}" for at in plans)
    yield "one query of all partitions then, s", *(_short(at.scan_s) for at in plans)
    yield "calls of one hospital's EMR in its busiest second", *(f"{at.emr_calls_peak:,.0f}" for at in plans)
    yield (
        "a slot of all inpatients, all models: minutes; messages on the queue",
        *(f"{at.slot_minutes:,.0f}; {at.chunks:,}" for at in plans),
    )
    yield "labels: minutes of each hour, one run", *(_short(at.label_minutes_an_hour) for at in plans)
    yield "extract: minutes of each day, one process", *(_short(at.extract_minutes_a_day) for at in plans)


def _limits(hospital: Hospital, figures: Figures) -> Iterator[Sequence[str]]:
    yield "what", "of", "can do", "hospitals", "beds", "then"
    for at, limit in in_order(hospital, figures):
        name = f"**{limit.name}**" if limit.hard else limit.name
        of = "a site" if limit.of_site else "a deployment"
        yield name, of, limit.most, _hospitals(at), f"{at * hospital.beds:,.0f}", limit.then


def _first(hospital: Hospital, figures: Figures) -> Iterator[str]:
    ordered = in_order(hospital, figures)
    for size in SIZES:
        together = [(at, limit) for at, limit in ordered if limit.load(plan(size, hospital, figures)) > 1]
        own = [
            (at, limit)
            for at, limit in ordered
            if limit.load(plan(1 if limit.of_site else size, hospital, figures, sites=size)) > 1
        ]
        yield f"**{size:,} hospitals as one site**: {_told(together)}"
        yield f"**{size:,} hospitals, a site each, in one deployment**: {_told(own)}"


def _told(passed: Sequence[tuple[float, Limit]]) -> str:
    if not passed:
        return "nothing breaks."
    served = "clinicians notice" if any(limit.hard for _, limit in passed) else "scores go on as ever"
    return f"{served}; broken: " + ", ".join(
        f"{limit.name.partition(':')[0]} (from {_hospitals(at)})" for at, limit in passed
    )


def _hospitals(at: float) -> str:
    return f"{at:,.1f}" if at < 100 else f"{at:,.0f}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def in_order(hospital: Hospital, figures: Figures) -> list[tuple[float, Limit]]:
    """Give how many hospitals each limit bears, the lowest first."""
    found = [(breaks_at(limit, hospital, figures), limit) for limit in limits(hospital)]
    return sorted(found, key=lambda each: each[0])


def _table(rows: Iterator[Sequence[str]], *, left: int = 0) -> str:
    """Give the rows as a table; its first column and so many of the last are words, the others numbers."""
    head, *rest = rows
    numbers = len(head) - 1 - left
    rule = ["---", *["---:"] * numbers, *["---"] * left]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rest))


def draw(hospital: Hospital, figures: Figures, file: Path) -> None:
    """Draw how many hospitals one deployment bears by each limit."""
    ordered = in_order(hospital, figures)
    with plt.rc_context(
        {"font.size": 9, "svg.hashsalt": "capacity", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, panel = plt.subplots(figsize=(10, 0.5 * len(ordered) + 1.4), constrained_layout=True)
        places = range(len(ordered), 0, -1)
        colours = [_RED if limit.hard else _BLUE for _, limit in ordered]
        bars = panel.barh(places, [at for at, _ in ordered], color=colours, height=0.55)
        for bar, (_, limit) in zip(bars, ordered, strict=True):
            bar.set_alpha(0.45 if limit.of_site else 0.9)
        panel.set_yticks(list(places), [limit.name for _, limit in ordered])
        for place, (at, _) in zip(places, ordered, strict=True):
            panel.text(at * 1.05, place, _hospitals(at), va="center")
        panel.set_xscale("log")
        panel.set_xlim(0.3, 30_000)
        for size in SIZES:
            panel.axvline(size, color=_GREY, linewidth=0.8, linestyle=":")
        panel.set_xlabel(f"hospitals of {hospital.beds:.0f} beds; light: of one site; red: clinicians notice")
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        plt.close(figure)


def main() -> int:
    """Write the page's tables and its picture anew."""
    write_page(read_kept())
    return 0


if __name__ == "__main__":
    sys.exit(main())
