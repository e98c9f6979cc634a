"""Lets in who may ask the registry over HTTP, and no more often than each may."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from deployr_core.registry.roles import Person
from deployr_serve.adapters.caller_jwt import KeySets
from deployr_serve.core.allowance import Allowance
from deployr_serve.core.basic import basic_caller
from deployr_serve.core.caller import CallerRefused, bearer_token, read_token
from deployr_serve.core.errors import CallerNotAllowed
from deployr_serve.core.json_caller import EntraTenant, tenant_of
from deployr_serve.core.ports import Clock
from deployr_serve.core.registry_people import ListedPerson, person_by_token

_PER_S, _BURST = 5.0, 50
"""People and pipelines ask seldom; each refusal is an entry of a journal."""

_log = logging.getLogger(__name__)


class RegistryPeople:
    """Those who are listed.

    Args:
        people: who they are.
        tenants: those of Entra ID.
        keys: theirs.
        clock: the machine's, never a replay's: tokens are of the present.
    """

    def __init__(
        self,
        people: tuple[ListedPerson, ...],
        *,
        tenants: tuple[EntraTenant, ...],
        keys: KeySets,
        clock: Clock,
    ) -> None:
        self._people = people
        self._by_name = {person.name: person for person in people}
        self._passwords = {person.name: person.password for person in people if person.password is not None}
        self._tenants = tenants
        self._keys = keys
        self._allowance = Allowance(per_s=_PER_S, burst=_BURST)
        self._clock = clock

    async def let_in(self, headers: Mapping[str, str], *, correlation_id: str) -> Person:
        """Give who asks, and take the request off their allowance.

        Args:
            headers: of the request; looked up in any case.
            correlation_id: what the audit lines name.

        Raises:
            CallerRefused: they did not prove who they are.
            CallerNotAllowed: they did, and are not listed.
            TooManyRequests: they ask too often.
        """
        try:
            person = await self._proved(headers)
        except CallerRefused as refusal:
            _log.warning("registry: refused: correlation_id=%s why=%s", correlation_id, refusal.why)
            raise
        except CallerNotAllowed:
            _log.warning("registry: not listed: correlation_id=%s", correlation_id)
            raise
        self._allowance.take(person.name, now=self._clock.monotonic())
        return person

    async def _proved(self, headers: Mapping[str, str]) -> Person:
        authorization = headers.get("Authorization")
        if authorization is not None and authorization.partition(" ")[0].lower() == "basic":
            listed = self._by_name[basic_caller(authorization, self._passwords)]
            return listed.with_roles(listed.roles)
        token = read_token(bearer_token(authorization))
        tenant = tenant_of(token, self._tenants)
        await self._keys.check_signature(token, tenant.keys)
        return person_by_token(token, tenant, self._people, now=self._clock.now())
