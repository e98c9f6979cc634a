"""Lets in who may call the JSON routes, and no more often than each may."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from deployr_serve.adapters.caller_jwt import KeySets
from deployr_serve.core.allowance import Allowance
from deployr_serve.core.basic import basic_caller
from deployr_serve.core.caller import CallerRefused, bearer_token, read_token
from deployr_serve.core.errors import CallerNotAllowed, TooManyRequests
from deployr_serve.core.json_caller import (
    CERTIFICATE_HEADER,
    EntraTenant,
    Gateway,
    JsonCaller,
    certificate_caller,
    entra_caller,
    is_of_gateway,
    tenant_of,
)
from deployr_serve.core.ports import Clock

_log = logging.getLogger(__name__)
_BURST_S = 2
"""How many seconds' worth of its allowance a caller may use up at once."""


class JsonCallers:
    """Those who are listed.

    Args:
        callers: who they are.
        tenants: those of Entra ID.
        keys: theirs.
        gateway: who may hand certificates on; None: nobody.
        per_s: how many requests a second each caller may make, of this worker.
        clock: the machine's, never a replay's: tokens are of the present.
    """

    def __init__(
        self,
        callers: tuple[JsonCaller, ...],
        *,
        tenants: tuple[EntraTenant, ...],
        keys: KeySets,
        gateway: Gateway | None,
        per_s: float,
        clock: Clock,
    ) -> None:
        self._callers = callers
        self._by_name = {caller.name: caller for caller in callers}
        self._passwords = {caller.name: caller.password for caller in callers if caller.password is not None}
        self._tenants = tenants
        self._keys = keys
        self._gateway = gateway
        self._allowance = Allowance(per_s=per_s, burst=max(1, int(_BURST_S * per_s)))
        self._clock = clock

    async def let_in(self, headers: Mapping[str, str], *, correlation_id: str) -> JsonCaller:
        """Give the caller, and take the request off its allowance.

        Args:
            headers: of the request; looked up in any case.
            correlation_id: what the audit lines name.

        Raises:
            CallerRefused: it did not prove who it is.
            CallerNotAllowed: it did, and is not listed.
            TooManyRequests: it asks too often.
        """
        try:
            caller = await self._proved(headers)
        except CallerRefused as refusal:
            _log.warning("json caller refused: correlation_id=%s why=%s", correlation_id, refusal.why)
            raise
        except CallerNotAllowed:
            _log.warning("json caller not listed: correlation_id=%s", correlation_id)
            raise
        try:
            self._allowance.take(caller.name, now=self._clock.monotonic())
        except TooManyRequests:
            _log.warning("json caller asks too often: correlation_id=%s caller=%s", correlation_id, caller.name)
            raise
        return caller

    async def _proved(self, headers: Mapping[str, str]) -> JsonCaller:
        authorization = headers.get("Authorization")
        if authorization is not None and authorization.partition(" ")[0].lower() == "basic":
            return self._by_name[basic_caller(authorization, self._passwords)]
        certificate = headers.get(CERTIFICATE_HEADER)
        if authorization is None and certificate is not None and self._gateway is not None:
            if not is_of_gateway(self._gateway, headers.get(self._gateway.header)):
                raise CallerRefused("not-the-gateway")
            return certificate_caller(certificate, self._callers)
        token = read_token(bearer_token(authorization))
        tenant = tenant_of(token, self._tenants)
        await self._keys.check_signature(token, tenant.keys)
        return entra_caller(token, tenant, self._callers, now=self._clock.now())
