"""Whom the registry knows, and by which proof: a token of Entra ID, HTTP Basic, or the login of a command line. Pure.

A person has one name, however they come in, so that nobody approves by one way what they trained by another. Who comes
with a token has the roles that it names, as the directory gives them; for the others they stand in the site's file.

Source: https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference [secondary]: ``oid`` is the
one id of a user, or of an application, that never changes and is never given again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from deployr_core.registry.roles import Person, Role
from deployr_serve.core.caller import Unproven
from deployr_serve.core.errors import CallerNotAllowed
from deployr_serve.core.json_caller import EntraTenant, checked_roles


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedPerson:
    """One whom the site's file lists.

    ``roles``: of who comes without a token. ``only``: see `deployr_core.registry.roles.Person`. ``login``: of the
    machine that `deployr models` runs on. ``password``: by HTTP Basic under the name. ``tenant`` and ``object_id``: by
    a token of Entra ID, of a person or of an application.
    """

    name: str
    roles: frozenset[Role] = frozenset()
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    tenant: str | None = None
    object_id: str | None = None
    only: Mapping[Role, frozenset[str]] = field(default_factory=dict, hash=False)

    def with_roles(self, roles: frozenset[Role]) -> Person:
        """Give the person as the registry knows them, in these roles."""
        aliases = frozenset({self.login} if self.login else ())
        return Person(name=self.name, roles=roles, aliases=aliases, only=self.only)


def person_by_login(login: str, people: Collection[ListedPerson]) -> Person | None:
    """Give whoever logs in so on the machine of a command line; None: nobody who is listed."""
    return next((each.with_roles(each.roles) for each in people if each.login == login), None)


def person_by_token(token: Unproven, tenant: EntraTenant, people: Collection[ListedPerson], *, now: datetime) -> Person:
    """Give whoever a token is of; to be asked only once the signature has been verified.

    Args:
        token: verified.
        tenant: whose it is.
        people: all that are listed.
        now: the real instant, aware.

    Raises:
        CallerRefused: a claim is missing or does not hold.
        CallerNotAllowed: somebody of that tenant, but none who is listed.
    """
    named = checked_roles(token, tenant, now=now)
    # The app's roles are called in the directory as they are here.
    roles = frozenset(role for role in Role if role.value in named)
    for person in people:
        if person.tenant == tenant.tenant and person.object_id == token.claims.get("oid"):
            return person.with_roles(roles)
    raise CallerNotAllowed("expected somebody whom this app's operator has listed")
