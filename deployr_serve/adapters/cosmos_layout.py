"""What the database in Azure Cosmos DB looks like: containers, keys, indexes and times to live, as code.

Packets lie under their own id, with their deliveries, events and labels: one small logical partition each, so that no
partition is hot or grows, and what belongs together is written at once or not at all. Shared records lie each under
its own id. Neither kind of key carries an identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.cosmos.aio import CosmosClient

PACKETS, RECORDS = "packets", "records"
LARGEST_BODY = 500_000
"""A packet of more bytes than this goes to a blob; the service takes 2 MB for a document, and for a batch."""
LARGEST_PART = 250_000
"""The most bytes of anything else: deliveries, events, labels and shared records are never honestly that large."""
LARGEST_BATCH = 1_500_000
MOST_IN_BATCH = 100
"""Source: Microsoft Learn, "Azure Cosmos DB service quotas"."""
_EXPIRES_ONLY_BY_OWN_TTL = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """One container. ``indexed``: the only paths that are; ``composite``: those that are read in an order.

    Bodies are not indexed: what is asked for stands beside them, in properties of its own. A property that only the
    documents have that somebody looks for keeps its index as small as they are few.
    """

    name: str
    key: str
    indexed: tuple[str, ...]
    composite: tuple[tuple[str, ...], ...] = ()

    def indexing_policy(self) -> dict[str, Any]:
        """Give the policy as the service takes it."""
        return {
            "indexingMode": "consistent",
            "automatic": True,
            "includedPaths": [{"path": f"/{name}/?"} for name in self.indexed],
            "excludedPaths": [{"path": "/*"}],
            "compositeIndexes": [
                [{"path": f"/{name}", "order": "ascending"} for name in names] for names in self.composite
            ],
        }


CONTAINERS = (
    Container(
        name=PACKETS,
        key="/packet_id",
        indexed=(
            # The service indexes a partition key only where it is told to.
            "packet_id",
            *("model_id", "started_at", "patient", "labelled_by", "labelled/[]"),
            *("due", "state", "delivery_id"),
            *("label_of", "label_id", "attached_at"),
            *("shown_at", "shown_id"),
        ),
        composite=(
            ("model_id", "packet_id"),
            ("patient", "packet_id"),
            ("state", "delivery_id"),
            ("label_of", "label_id"),
            ("label_of", "packet_id"),
        ),
    ),
    Container(name=RECORDS, key="/id", indexed=("kind",)),
)


async def init(client: CosmosClient, database: str) -> tuple[str, ...]:
    """Make the database and the containers that are missing, and give those that are there the declared policies.

    Gives a line for everything that was done; none where all was well. A partition key cannot be changed: where it
    differs nothing is done, and `check` goes on saying so. Throughput is left to the database's settings.

    Raises:
        azure.core.exceptions.AzureError: it was refused.
    """
    from azure.cosmos import PartitionKey

    done = []
    before = {difference.partition(":")[0] for difference in await check(client, database)}
    held = await client.create_database_if_not_exists(database)
    for declared in CONTAINERS:
        if declared.name not in before:
            continue
        ttl = _EXPIRES_ONLY_BY_OWN_TTL
        policy, key = declared.indexing_policy(), PartitionKey(path=declared.key)
        container = await held.create_container_if_not_exists(
            declared.name, key, indexing_policy=policy, default_ttl=ttl
        )
        there = await container.read()
        if there["partitionKey"]["paths"] != [declared.key]:
            continue
        if list(_differences(declared, there)):
            await held.replace_container(container, key, indexing_policy=policy, default_ttl=ttl)
        done.append(f"{declared.name}: is as declared now")
    return tuple(done)


async def check(client: CosmosClient, database: str) -> tuple[str, ...]:
    """Say what differs from what is declared, a line each that begins with the container's name; none if nothing does.

    Raises:
        azure.core.exceptions.AzureError: it cannot be read.
    """
    from azure.cosmos.exceptions import CosmosResourceNotFoundError

    found: list[str] = []
    for declared in CONTAINERS:
        try:
            there = await client.get_database_client(database).get_container_client(declared.name).read()
        except CosmosResourceNotFoundError:
            found.append(f"{declared.name}: is not there")
            continue
        found += _differences(declared, there)
    return tuple(found)


def _differences(declared: Container, there: Mapping[str, Any]) -> Iterator[str]:
    key = there.get("partitionKey", {}).get("paths")
    if key != [declared.key]:
        yield f"{declared.name}: expected the partition key {declared.key}, got {key}; it cannot be changed"
    if there.get("defaultTtl") != _EXPIRES_ONLY_BY_OWN_TTL:
        yield f"{declared.name}: expected documents to expire by their own time to live"
    policy = there.get("indexingPolicy", {})
    wanted = declared.indexing_policy()
    if _paths(policy, "includedPaths") != _paths(wanted, "includedPaths"):
        yield f"{declared.name}: expected only {', '.join(sorted(declared.indexed))} to be indexed"
    elif not _paths(policy, "excludedPaths") >= _paths(wanted, "excludedPaths"):
        yield f"{declared.name}: expected everything else to be left out of the index"
    if _composites(policy) != _composites(wanted):
        yield f"{declared.name}: expected the composite indexes {_composites(wanted)}"


def _paths(policy: Mapping[str, Any], which: str) -> set[str]:
    return {one["path"] for one in policy.get(which, ())}


def _composites(policy: Mapping[str, Any]) -> list[list[str]]:
    return sorted([one["path"] for one in index] for index in policy.get("compositeIndexes", ()))
