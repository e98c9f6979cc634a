"""One container in Azure Cosmos DB: documents read, found and written, each call to an end that is known.

Every method raises StoreUnavailable where nobody knows; those that write raise Conflict where nothing was done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import AzureError

from deployr_serve.adapters.cosmos_errors import Verdict, unavailable, verdict
from deployr_serve.adapters.cosmos_layout import LARGEST_BATCH, MOST_IN_BATCH
from deployr_serve.adapters.cosmos_link import Conflict, CosmosLink
from deployr_serve.core.errors import StoreUnavailable

_T = TypeVar("_T")
Document = dict[str, Any]
Operation = tuple[str, tuple[Any, ...], dict[str, Any]]
"""One of a batch: ``create``, ``replace`` or ``delete``, what it is about, and the tag that it asks for, if it does."""


class CosmosContainer:
    """The documents of one container, each with the ``write`` that made it.

    Args:
        link: the connection.
        name: which container.
        key: the property that is its partition key.
        scan_s: how long a query of all partitions may take; no request waits for one. The SDK asks one physical
            partition after the other.
    """

    def __init__(self, link: CosmosLink, name: str, *, key: str, scan_s: float) -> None:
        self._link = link
        self._name = name
        self._key = key
        self._scan_s = scan_s

    async def read(self, item_id: str, *, key: str) -> Document | None:
        """Give a document, or None if there is none."""

        async def attempt() -> Document:
            return dict(await (await self._held()).read_item(item_id, partition_key=key))

        try:
            return await self._link.call(attempt)
        except Conflict:
            return None

    async def read_many(self, ids_and_keys: Sequence[tuple[str, str]]) -> list[Document]:
        """Give those of the documents that there are, in no order."""
        if not ids_and_keys:
            return []

        async def attempt() -> list[Document]:
            return [dict(each) for each in await (await self._held()).read_items(list(ids_and_keys))]

        return await self._done(attempt, within_s=self._scan_s)

    async def query(
        self, sql: str, values: Mapping[str, object], *, key: str | None = None, limit: int | None = None
    ) -> list[Document]:
        """Give what a query finds, of one partition or of all.

        Args:
            sql: with ``@name`` for every value; nothing is ever written into it.
            values: by the names without ``@``.
            key: the partition; None asks all of them.
            limit: what ``@limit`` stands for, and how many are fetched at a time.
        """
        values = values if limit is None else {**values, "limit": limit}
        parameters = [{"name": f"@{name}", "value": value} for name, value in values.items()]
        # A page of large packets takes longer to come than the little that a request waits for.
        scope: dict[str, Any] = {"read_timeout": self._scan_s / 3} if key is None else {"partition_key": key}
        if limit is not None:
            scope["max_item_count"] = limit

        async def attempt() -> list[Document]:
            found = (await self._held()).query_items(sql, parameters=parameters, **scope)
            return [dict(each) async for each in found]

        return await self._done(attempt, within_s=self._scan_s if key is None else None)

    async def create(self, document: Document) -> str:
        """Create a document; give its tag."""

        async def attempt() -> str:
            return _etag(await (await self._held()).create_item(document, no_response=True))

        return await self._link.call(attempt, landed=self._landed(document))

    async def replace(self, document: Document, *, etag: str) -> str:
        """Replace the document that has this tag; give the new one."""

        async def attempt() -> str:
            held = await self._held()
            made = await held.replace_item(
                document["id"], document, etag=etag, match_condition=MatchConditions.IfNotModified, no_response=True
            )
            return _etag(made)

        return await self._link.call(attempt, landed=self._landed(document))

    async def upsert(self, document: Document) -> None:
        """Write a document, whatever was there."""

        async def attempt() -> None:
            await (await self._held()).upsert_item(document, no_response=True)

        await self._done(attempt)

    async def delete(self, item_id: str, *, key: str) -> None:
        """Take a document out, if it is there."""

        async def attempt() -> None:
            await (await self._held()).delete_item(item_id, partition_key=key)

        try:
            await self._link.call(attempt)
        except Conflict:
            return

    async def batch(self, operations: Sequence[Operation], *, key: str, by: Document) -> str:
        """Do all of it or nothing, in one partition; give the tag of the first document written.

        ``by``: one of the documents written, which tells whether it was done.
        """
        return await self._batched(operations, key=key, landed=self._landed(by))

    async def erase(self, operations: Sequence[Operation], *, key: str) -> None:
        """Delete all of these or nothing. One that is gone already is a conflict, be it by our own first try."""
        await self._batched(operations, key=key, landed=None)

    async def _done(self, attempt: Callable[[], Awaitable[_T]], *, within_s: float | None = None) -> _T:
        """Do what cannot meet with a conflict: one that it meets all the same is about the container."""
        try:
            return await self._link.call(attempt, within_s=within_s)
        except Conflict:
            raise unavailable(Verdict.DOWN) from None

    async def _batched(
        self, operations: Sequence[Operation], *, key: str, landed: Callable[[], Awaitable[str | None]] | None
    ) -> str:
        size = sum(len(about[-1].get("body", "")) for name, about, _ in operations if name != "delete")
        if len(operations) > MOST_IN_BATCH or size > LARGEST_BATCH:
            expected = f"expected at most {MOST_IN_BATCH} documents and {LARGEST_BATCH} bytes to be written at once"
            raise StoreUnavailable(expected)

        async def attempt() -> str:
            # The SDK takes the tags out of what it is given.
            fresh = [(name, about, dict(how)) for name, about, how in operations]
            done = await (await self._held()).execute_item_batch(fresh, key)
            return str(done[0].get("eTag", ""))

        return await self._link.call(attempt, landed=landed)

    def _landed(self, document: Document) -> Callable[[], Awaitable[str | None]]:
        async def landed() -> str | None:
            try:
                held = await (await self._held()).read_item(document["id"], partition_key=document[self._key])
            except AzureError as error:
                if verdict(error) is Verdict.ABSENT:
                    return None
                raise
            return str(held["_etag"]) if held.get("write") == document["write"] else None

        return landed

    async def _held(self) -> Any:
        return await self._link.container(self._name)


def _etag(made: Any) -> str:
    return str(made.get_response_headers()["etag"])
