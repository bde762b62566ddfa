"""How an agent's memory works, and a tenant's: read from the tenant's settings, with a default for everything.

An agent's policy is the tenant's setting `memory.agent:<name>` over `memory.agent:*` over the defaults, field by field;
the tenant's is `memory.tenant` over the defaults. A stored value that cannot be used stops nobody: the field stands as
if it were not set, or as CAREFUL says, and Health and `doctor` name it. Recall reads this too, so it stands below the
services; `memory.services.policies` changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentstate.core.errors import Invalid
from agentstate.core.limits import (
    BUFFER_AGE_S_MAX,
    BUFFER_MESSAGES_MAX,
    CONTEXT_TOKENS_MAX,
    CONTEXT_TOKENS_MIN,
    NAME_CHARS_MAX,
    RETENTION_DAYS_MAX,
    SESSION_LIFE_S_MAX,
    SUBJECT_CAP_BYTES_MAX,
    SUBJECT_CAP_BYTES_MIN,
    SUBJECT_RECALL_MAX,
)
from agentstate.db import sql
from agentstate.tenants.models import TenantSetting

Strategy = Literal["window", "summary", "hierarchical", "importance"]
Retrieval = Literal["always", "reference", "tool", "never"]
Persistence = Literal["sync", "batched", "periodic"]
FullText = Literal["plain", "blind", "off"]
Language = Literal["english", "simple"]  # Postgres' configurations: simple knows neither endings nor stop words
STRATEGIES: tuple[str, ...] = get_args(Strategy)
LANGUAGES: tuple[str, ...] = get_args(Language)
AnyPolicy = TypeVar("AnyPolicy", bound=BaseModel)

UNASKED = ("never", "tool")  # ways of retrieval by which a context recalls nothing
ANY_AGENT = "*"
PREFIX = "memory.agent:"
TENANT_KEY = "memory.tenant"
# What a value that cannot be used stands for where the default might do what cannot be taken back: words written
# readably, sessions deleted, proposals accepted by nobody.
CAREFUL: dict[str, Any] = {"fulltext": "blind", "session_keep_days": None, "ledger_keep_days": None, "accept": "review"}

# Every recall asks this. Index: tenants_tenantsetting_key.
_STORED = "SELECT value::text FROM tenants_tenantsetting WHERE key = %s"


class AgentPolicy(BaseModel):
    """How sessions of one agent are kept, told shorter and put into a context."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    strategy: Strategy = Field("summary", description="What stands in for the messages that do not fit word for word.")
    budget_tokens: int = Field(8_000, ge=CONTEXT_TOKENS_MIN, le=CONTEXT_TOKENS_MAX, description="Of one context.")
    retrieval: Retrieval = Field("always", description="When recall is asked; tool: the agent asks by itself.")
    recall_k: int = Field(10, ge=1, le=SUBJECT_RECALL_MAX, description="Units that recall offers to a context.")
    mask_over_tokens: int = Field(400, ge=20, le=100_000, description="Older tool messages above this are masked.")
    persistence: Persistence = Field("sync", description="When an appended message is durable.")
    batch_n: int = Field(20, ge=1, le=BUFFER_MESSAGES_MAX, description="batched: messages a crash of Redis may lose.")
    batch_s: float = Field(5.0, ge=1, le=BUFFER_AGE_S_MAX, description="batched, periodic: seconds it may lose.")
    idle_s: int | None = Field(86_400, ge=60, le=SESSION_LIFE_S_MAX, description="A session expires when idle so long.")
    lifetime_s: int | None = Field(None, ge=60, le=SESSION_LIFE_S_MAX, description="And so long after its opening.")
    reopen: bool = Field(True, description="Whether opening an ended session's key opens it again.")
    summarise_at_messages: int = Field(20, ge=4, le=500, description="Messages of one segment of the summary.")
    summarise_with: Literal["extractive", "model"] = Field("extractive", description="Who tells it shorter.")
    summary_tokens: int = Field(800, ge=50, le=8_000, description="Of a running summary.")
    extraction: Literal["off", "rules", "model"] = Field("rules", description="What proposes items after a turn.")
    accept: Literal["auto", "review"] = Field("review", description="Who accepts those proposals.")


class TenantPolicy(BaseModel):
    """What holds for all memory of a tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fulltext: FullText = Field("plain", description="Words for search: as digests, as HMACs, or none.")
    language: Language = Field("english", description="Whose endings and stop words search knows.")
    cap_bytes: int = Field(
        SUBJECT_CAP_BYTES_MAX, ge=SUBJECT_CAP_BYTES_MIN, le=SUBJECT_CAP_BYTES_MAX, description="Items of one subject."
    )
    expiry_days: int = Field(90, ge=1, le=3_650, description="An item that is not pinned lives so long.")
    session_keep_days: int | None = Field(
        365, ge=1, le=RETENTION_DAYS_MAX, description="A session goes so long after it ended; none: it is kept."
    )
    ledger_keep_days: int | None = Field(
        365, ge=1, le=RETENTION_DAYS_MAX, description="What was given to a call is known so long; none: for ever."
    )


@dataclass(frozen=True, slots=True)
class Unusable:
    """A stored value that does not hold; `field` is empty when the whole setting does not."""

    key: str
    field: str
    why: str


def for_agent(agent: str) -> AgentPolicy:
    """One query."""
    return of_stored(agent, dict(TenantSetting.objects.filter(key__in=keys_of(agent)).values_list("key", "value")))


def keys_of(agent: str) -> list[str]:
    """The settings that an agent's policy is made of."""
    return [f"{PREFIX}{agent}", f"{PREFIX}{ANY_AGENT}"]


def of_stored(agent: str, stored: Mapping[str, Any]) -> AgentPolicy:
    """The policy from the values of those settings."""
    own, every = keys_of(agent)
    return _standing(AgentPolicy, [stored.get(every), stored.get(own)])


def for_tenant() -> TenantPolicy:
    """One query."""
    return of_tenant(sql.rows(*asked_for_tenant()))


def asked_for_tenant() -> sql.Query:
    """The query whose rows of_tenant() reads, for whoever asks for other things in the same round trip."""
    return _STORED, [TENANT_KEY]


def of_tenant(found: Sequence[sql.Row]) -> TenantPolicy:
    return _standing(TenantPolicy, [orjson.loads(found[0][0]) if found else None])


def validated(model: type[AnyPolicy], fields: Mapping[str, Any], where: str) -> AnyPolicy:
    """The policy these fields make. Raises: Invalid naming the setting and the field."""
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])[:NAME_CHARS_MAX]
        raise Invalid(f"The setting {where} cannot be used: {field}: {first['msg']}.", field=f"/{field}") from error


def unusable(model: type[BaseModel], key: str, value: Any) -> list[Unusable]:
    """What of a stored setting does not hold."""
    if not isinstance(value, dict):
        return [Unusable(key, "", "it is no object of fields")]
    found = ((field, _trouble(model, field, each)) for field, each in value.items())
    return [Unusable(key, field, why) for field, why in found if why]


def usable(model: type[BaseModel], value: Any) -> dict[str, Any]:
    """The fields of a stored setting as they are in force: what does not hold is left out, or as CAREFUL says."""
    if value is None:
        return {}
    bad = {each.field for each in unusable(model, "", value)}
    if "" in bad:
        bad, value = set(model.model_fields), {}
    careful = {field: CAREFUL[field] for field in model.model_fields if field in CAREFUL and field in bad}
    return {**{field: each for field, each in value.items() if field not in bad}, **careful}


def _standing(model: type[AnyPolicy], stored: Sequence[Any]) -> AnyPolicy:
    """The last setting over those before it, over the defaults."""
    try:
        return model(**{field: value for fields in stored if fields is not None for field, value in fields.items()})
    except (ValidationError, AttributeError, TypeError):  # a value of another version, or of somebody's own SQL
        return model(**{field: value for fields in stored for field, value in usable(model, fields).items()})


def _trouble(model: type[BaseModel], field: str, value: Any) -> str:
    """Why this value cannot stand in this field, or ""."""
    try:
        model(**{field: value})
    except ValidationError as error:
        first = error.errors()[0]
        return "this version knows no such field" if first["type"] == "extra_forbidden" else first["msg"]
    return ""
