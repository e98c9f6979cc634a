"""The capacity plan: what so many hospitals ask of one deployment, and what it breaks on first. Pure.

Every figure is either measured (`Figures`), assumed of a hospital (`Hospital`), or a limit of ours or of the services,
each with its source. Loads are those of the busiest second where somebody waits for an answer, of the busiest hour
where a run must keep up, and of the mean day where it may catch up at night.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployr_serve.adapters.cosmos_layout import LARGEST_PART
from deployr_serve.core.alert_tallies import MOST_PAGES, PAGE, PARTS

DAY_S, HOUR_S = 86_400.0, 3_600.0
_AT_MOST_BUSY = 0.6
_SIGMAS = 4.0
_CHARGES: Mapping[str, float] = {
    "create packets": 8.0,
    "batch packets": 25.0,
    "read packets": 1.0,
    "replace packets": 11.0,
    "create records": 6.0,
    "read records": 1.0,
    "replace records": 11.0,
    "query records": 3.0,
}
"""Request units of a call, of our documents' sizes. Source: docs/store.md, from the service's public rules."""
_LABEL_CHARGE = 22.0
_PACKET_KB = 7.8
"""A packet with its delivery, its label and their index. Source: docs/store.md."""
_PARTITION_GB, _PARTITION_RU = 50.0, 10_000.0
"""Source: Microsoft Learn, "Azure Cosmos DB service quotas"; a physical partition's storage as in docs/store.md."""
_CONTAINER_RU = 1_000_000.0
"""Source: the same page: the default, which support raises."""
_RU_OF_PARTITION = 100.0
"""To provision at the least, since throughput is divided evenly among partitions (docs/store.md)."""
_PARTITION_ASKED_S, _SCAN_S = 1.0 / 115, 30.0
"""Of a query of all partitions: about a second for 115 of them (docs/store.md, a guess), and what it may take."""
_REGION_CORES = 250.0
"""Of all Flex Consumption apps of one subscription in one region. Source: Microsoft Learn, "Flex Consumption plan",
regional subscription memory quotas: 512,000 MB, where 2,048 MB are one core; from memory, support raises it."""
_IN_ACCOUNT, _FOR_SITE = 500.0, 3.0
_SITE_START_S, _START_WAIT_S = 0.015, 5.0
"""Of an account, and of an instance that starts. Source: docs/sites.md; how long a start may take is a guess."""
_LOOK_S = 300.0
"""How often alerts are looked for (docs/alerts.md)."""
_CHANGES_OF_PACKET = 4.0
"""Documents that change: itself with its delivery, later itself with its label."""
_READ_AGAIN = (_LOOK_S + 60.0) / _LOOK_S
"""Each look reads the minute before it once more (`deployr_serve.adapters.cosmos_packets`)."""
_OUTCOME_BYTES = len('"0123456789abcdef":"s10",')
"""What an open hour's record keeps of a packet (`deployr_serve.core.alert_tallies`)."""
_LABELLED_A_SECOND = 10_000 / 4.8
"""Of an EMR that takes 20 ms for a call. Source: docs/performance.md, `benchmarks/labels.py`."""
_LABEL_RUN_S = 240.0
"""Of an hour: DEPLOYR_LABEL_BUDGET_S by default."""
_EXTRACTED_A_SECOND = 1_850.0
"""10,000 packets of 60 features out of SQLite in 5.4 s, on a busy machine."""
_EXTRACT_NIGHT_S = 8 * HOUR_S
_OF_PAGE = 500.0
"""What labels and the extract ask the store for at once; of changes the last second is asked for by itself."""
_TAB_S_OF_PACKET, _TAB_WAIT_S, _TAB_DAYS = 2.6 / 83_334, 60.0, 90.0
"""The performance tab of one model, and the days that it shows at first. Source: docs/dashboard.md."""
_TAB_KB_OF_PACKET = 0.9e6 / 83_334


@dataclass(frozen=True, kw_only=True, slots=True)
class Hospital:
    """What is assumed of each hospital.

    ``busiest_hour``: its orders over those of a mean hour. ``together``: orders that are signed at once. ``occupied``:
    the share of beds with somebody in them.
    """

    beds: float = 160.0
    orders_a_bed: float = 24.0
    models: int = 12
    busiest_hour: float = 1.86
    together: float = 1.5
    occupied: float = 0.65

    @property
    def packets_a_day(self) -> float:
        """Each order is one packet for each model."""
        return self.beds * self.orders_a_bed * self.models


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured. ``first_ms``: a host's processor time of an order's first model; ``further_ms``: of each more.

    ``packet_ru``: request units of a packet, its label included. ``searches``, ``writes``: calls of the EMR for an
    order, and for a packet. ``memory_mb``: of a host.
    """

    first_ms: float
    further_ms: float
    packet_ru: float
    searches: float
    writes: float
    memory_mb: float
    idle_cores: float
    batch_ms: float


def packet_ru(calls: Mapping[str, float]) -> float:
    """Give the request units of a packet in its life.

    Args:
        calls: how many of each kind one inference makes, as `benchmarks.cosmos_calls` names them.

    Raises:
        KeyError: a call of a kind for which no charge is known.
    """
    return sum(_CHARGES[name] * count for name, count in calls.items()) + _LABEL_CHARGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one deployment of so many hospitals needs. Rates are a second's; ``peak`` is of the busiest second."""

    hospitals: float
    sites: float
    beds: float
    orders: float
    orders_busy: float
    """In the busiest hour."""
    orders_peak: float
    packets: float
    packets_busy: float
    packets_peak: float
    cores: float
    instances: int
    memory_gb: float
    ru: float
    ru_peak: float
    tb_a_year: float
    partitions: int
    """After a year."""
    ru_provisioned: float
    """For the busiest second, and so that no partition is left with too little."""
    scan_s: float
    """Of one query of all partitions."""
    emr_calls_peak: float
    """A second, of one hospital in its own busiest second."""
    slot_minutes: float
    """For everybody who lies there, with every model, on those instances."""
    chunks: int
    """Messages on the queue for that slot, of fifty patients each."""
    label_minutes_an_hour: float
    extract_minutes_a_day: float


def plan(hospitals: float, hospital: Hospital, figures: Figures, *, sites: float = 1) -> Plan:
    """Give what so many hospitals need together, as one site or as so many.

    Orders come independently of each other, a few at once: the peak is the busiest hour's rate and four standard
    deviations of what comes in a second. Store and runs are reckoned as if all were in one store; of sites each has
    its own.
    """
    orders = hospitals * hospital.beds * hospital.orders_a_bed / DAY_S
    busy = orders * hospital.busiest_hour
    peak = _peak(busy, hospital)
    packets, packets_peak = orders * hospital.models, peak * hospital.models
    order_ms = figures.first_ms + (hospital.models - 1) * figures.further_ms
    cores = peak * order_ms / 1000
    instances = max(2, math.ceil(cores / _AT_MOST_BUSY))
    ru_peak = packets_peak * figures.packet_ru
    tb_a_year = packets * DAY_S * 365 * _PACKET_KB / 1e9
    patients = hospitals * hospital.beds * hospital.occupied
    partitions = max(math.ceil(tb_a_year * 1000 / _PARTITION_GB), math.ceil(ru_peak / _PARTITION_RU))
    scan_s = partitions * _PARTITION_ASKED_S
    labelling_s = packets * HOUR_S * (1 / _LABELLED_A_SECOND + scan_s / _OF_PAGE)
    extracting_s = packets * DAY_S * (1 / _EXTRACTED_A_SECOND + _CHANGES_OF_PACKET * 2 * scan_s / _OF_PAGE)
    one_peak = _peak(hospital.beds * hospital.orders_a_bed / DAY_S * hospital.busiest_hour, hospital)
    return Plan(
        hospitals=hospitals,
        sites=sites,
        beds=hospitals * hospital.beds,
        orders=orders,
        orders_busy=busy,
        orders_peak=peak,
        packets=packets,
        packets_busy=busy * hospital.models,
        packets_peak=packets_peak,
        cores=cores,
        instances=instances,
        memory_gb=instances * figures.memory_mb / 1000,
        ru=packets * figures.packet_ru,
        ru_peak=ru_peak,
        tb_a_year=tb_a_year,
        partitions=partitions,
        ru_provisioned=max(ru_peak, partitions * _RU_OF_PARTITION),
        scan_s=scan_s,
        emr_calls_peak=one_peak * (figures.searches + hospital.models * figures.writes),
        slot_minutes=patients * hospital.models * figures.batch_ms / 1000 / (instances * _AT_MOST_BUSY) / 60,
        chunks=math.ceil(patients / 50),
        label_minutes_an_hour=labelling_s / 60,
        extract_minutes_a_day=extracting_s / 60,
    )


def _peak(busy: float, hospital: Hospital) -> float:
    return busy + _SIGMAS * math.sqrt(busy * hospital.together)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """Something of which there is only so much.

    ``of_site``: each site has its own, else the sites of one deployment share it. ``hard``: clinicians notice it; else
    who watches does.
    """

    name: str
    most: str
    load: Callable[[Plan], float]
    """As a share of what it can; over 1 it is broken."""
    of_site: bool
    hard: bool
    then: str


def limits(hospital: Hospital) -> tuple[Limit, ...]:
    """Give what can break, with what to do then."""
    open_hour = PARTS * LARGEST_PART / _OUTCOME_BYTES
    return (
        Limit(
            name="the dashboard's performance tab: one model, 90 days, all hospitals in it",
            most=f"{_TAB_WAIT_S / _TAB_S_OF_PACKET:,.0f} packets in a minute, "
            f"{_TAB_WAIT_S / _TAB_S_OF_PACKET * _TAB_KB_OF_PACKET / 1e6:.1f} GB",
            load=lambda at: at.packets / hospital.models * DAY_S * _TAB_DAYS * _TAB_S_OF_PACKET / _TAB_WAIT_S,
            of_site=True,
            hard=False,
            then="a site for each hospital; fewer days",
        ),
        Limit(
            name="the alerts' counts: an hour of a site is sixteen records",
            most=f"{open_hour:,.0f} packets in an hour of a site",
            load=lambda at: at.packets_busy * HOUR_S / open_hour,
            of_site=True,
            hard=False,
            then="a site for each hospital, or for each few models of a large one",
        ),
        Limit(
            name="the alerts' look: what it reads of the store",
            most=f"{PAGE * MOST_PAGES:,} changes every five minutes",
            load=lambda at: at.packets_busy * _CHANGES_OF_PACKET * _READ_AGAIN * _LOOK_S / (PAGE * MOST_PAGES),
            of_site=True,
            hard=False,
            then="a site for each hospital",
        ),
        Limit(
            name="labels: one run, four minutes of each hour",
            most=f"{_LABELLED_A_SECOND:,.0f} packets a second, and the queries for {_OF_PAGE:.0f} at a time",
            load=lambda at: at.label_minutes_an_hour * 60 / _LABEL_RUN_S,
            of_site=True,
            hard=False,
            then="a site for each hospital; a schedule for each model",
        ),
        Limit(
            name="the extract: one process, a night of eight hours",
            most=f"{_EXTRACTED_A_SECOND:,.0f} packets a second, and the queries for {_OF_PAGE:.0f} changes at a time",
            load=lambda at: at.extract_minutes_a_day * 60 / _EXTRACT_NIGHT_S,
            of_site=True,
            hard=False,
            then="a site for each hospital; run it all day",
        ),
        Limit(
            name="the account: databases and containers, three for each site",
            most=f"{_IN_ACCOUNT:.0f} of them",
            load=lambda at: at.sites * _FOR_SITE / _IN_ACCOUNT,
            of_site=False,
            hard=True,
            then="another account, or another deployment",
        ),
        Limit(
            name="an instance's start: each site is put together by itself",
            most=f"{_START_WAIT_S:.0f} s of processor time",
            load=lambda at: at.sites * _SITE_START_S / _START_WAIT_S,
            of_site=False,
            hard=True,
            then="another deployment",
        ),
        Limit(
            name="instances: cores of one subscription in one region",
            most=f"{_REGION_CORES:.0f} cores",
            load=lambda at: at.instances / _REGION_CORES,
            of_site=False,
            hard=True,
            then="ask for a higher quota, or a second deployment in another region",
        ),
        Limit(
            name="the store: request units of one container",
            most=f"{_CONTAINER_RU:,.0f} RU/s",
            load=lambda at: at.ru_provisioned / _CONTAINER_RU,
            of_site=True,
            hard=True,
            then="a site for each hospital; ask for a higher quota",
        ),
        Limit(
            name="the relay: its query of all partitions, packets of a year",
            most=f"{_SCAN_S / _PARTITION_ASKED_S:,.0f} partitions in 30 s",
            load=lambda at: at.scan_s / _SCAN_S,
            of_site=True,
            hard=True,
            then="a site for each hospital; keep packets for less long",
        ),
    )


def breaks_at(limit: Limit, hospital: Hospital, figures: Figures) -> float:
    """Give how many hospitals are just borne, to a tenth, below a hundred thousand.

    In one site, where each site has its own of what is limited; else as many sites as hospitals.
    """
    low, high = 0.0, 1e5
    while high - low > 0.05:
        middle = (low + high) / 2
        at = plan(middle, hospital, figures, sites=1 if limit.of_site else middle)
        if limit.load(at) <= 1:
            low = middle
        else:
            high = middle
    return round(low, 1)
