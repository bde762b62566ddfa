"""What every page shows around its content: tenant, person, counts, notices, preferences. Read only when used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.http import HttpRequest

from agentstate.tenants import members
from agentstate.tenants.actors import Actor, allows
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from runs.selectors import standing
from runs.selectors.standing import Standing

VERSION = "0.1.0"
THEMES = {"system": "as the system", "light": "light", "dark": "dark"}
DENSITIES = {"compact": "compact", "comfortable": "comfortable"}
KEYS = {"on": "on", "off": "off"}


@dataclass
class Page:
    request: HttpRequest

    @property
    def tenant(self) -> Tenant | None:
        return getattr(self.request, "tenant", None)

    @property
    def actor(self) -> Actor | None:
        return getattr(self.request, "actor", None)

    @cached_property
    def tenants(self) -> list[Tenant]:
        found: list[Tenant] | None = getattr(self.request, "tenants", None)
        if found is None and self.request.user.is_authenticated:
            found = members.tenants_of(self.request.user)
        return found or []

    @cached_property
    def standing(self) -> Standing:
        """Counts and notices of the tenant; a view that is in the scope anyway has read them already."""
        found = getattr(self.request, "standing", None)
        if isinstance(found, Standing) or self.tenant is None:
            return found or Standing()
        with tenant_scope(self.tenant.id):
            return standing.read()

    @property
    def person(self) -> str:
        user = self.request.user
        return str(getattr(user, "name", "") or getattr(user, "email", ""))

    @property
    def version(self) -> str:
        return VERSION

    @property
    def request_id(self) -> str:
        return str(getattr(self.request, "request_id", ""))

    @property
    def theme(self) -> str:
        return _choice(self.request, "theme", THEMES)

    @property
    def density(self) -> str:
        return _choice(self.request, "density", DENSITIES)

    @property
    def keys(self) -> str:
        return _choice(self.request, "keys", KEYS)

    @property
    def can_start(self) -> bool:
        return self._may("runs.start")

    @property
    def can_control(self) -> bool:
        return self._may("runs.control")

    @property
    def can_decide(self) -> bool:
        return self._may("approvals.decide")

    @property
    def can_remember(self) -> bool:
        return self._may("memory.write")

    @property
    def can_erase(self) -> bool:
        return self._may("memory.erase")

    @property
    def can_stop(self) -> bool:
        return self._may("admin.stop")

    def _may(self, verb: str) -> bool:
        return self.actor is not None and allows(self.actor, verb)


def page(request: HttpRequest) -> dict[str, object]:
    return {"page": Page(request)}


def _choice(request: HttpRequest, name: str, allowed: dict[str, str]) -> str:
    value = request.COOKIES.get(name, "")
    return value if value in allowed else next(iter(allowed))
