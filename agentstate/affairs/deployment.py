"""The deployment checklist: each box is looked at, not assumed, and says how to tick it.

Used by `doctor`, by the Health page, and by `up` for servers that are not its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import psycopg
import redis
from django.conf import settings

from agentstate.core.errors import DomainError
from agentstate.db import pooling
from agentstate.presence import READY_KEY

POSTGRES_MIN = 150_000
PGVECTOR_MIN = (0, 8)
CONNECT_S_MAX = 5
DISK_FREE_BYTES_MIN = 1 << 30
CLOCK_SKEW_S_MAX = 1.0
TENANTS_LOOKED_AT = 5
TENANTS_ASKED = 1_000  # one read each
UNSET_SECRET = "unset-outside-up-and-test"  # noqa: S105 (what it is when it is not set)

Level = Literal["ok", "warn", "bad"]
type_connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Box:
    """One line of the checklist; `fix` says what to do when it is not ok."""

    name: str
    level: Level
    found: str
    fix: str = ""


def boxes() -> list[Box]:
    """All boxes, in the order in which they matter. A box that cannot be looked at is bad, never left out."""
    return [look() for look in (*DATABASE_LOOKS, *REDIS_LOOKS, *SETTINGS_LOOKS, *MODEL_LOOKS)]


def database_trouble(name: str, url: str, *, role: Literal["app", "owner"]) -> str:
    """One sentence about why this database cannot be used, or "". Opens one connection."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_S_MAX) as connection:
            trouble = (
                _version_trouble(connection) or _vector_trouble(connection) or _role_trouble(name, connection, role)
            )
        return trouble or (pooling.plans_trouble(name, url) if role == "app" else "")
    except psycopg.Error as error:
        cause = str(error).strip().splitlines()[0]  # the last line is only a hint
        return f"{name} cannot be used ({cause}); mend it, or remove it to get the embedded server."


def lock_trouble(direct_url: str, *, database_url: str) -> str:
    """One sentence about why workers could not hold their locks there, or ""."""
    try:
        return pooling.lock_trouble(direct_url, database_url=database_url)
    except psycopg.Error as error:
        name = pooling.direct_name(direct_url, database_url=database_url)
        return f"{name} cannot be used ({str(error).strip().splitlines()[0]}); mend it."


def redis_trouble(name: str, url: str) -> str:
    """One sentence about why this server cannot be used, or ""."""
    try:
        with redis_client(url) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        return f"{name} cannot be used ({error}); mend it, or remove it to get the embedded server."
    return ""


def redis_client(url: str) -> redis.Redis:
    """Either spelling of a Unix socket: redis-py's and kombu's."""
    url = url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    return redis.Redis.from_url(url, socket_connect_timeout=CONNECT_S_MAX, socket_timeout=CONNECT_S_MAX)


def _version_trouble(connection: type_connection) -> str:
    major = connection.info.server_version // 10_000
    return "" if connection.info.server_version >= POSTGRES_MIN else f"Postgres {major} is too old; use 15 or newer."


def _vector_trouble(connection: type_connection) -> str:
    found = connection.execute("select extversion from pg_extension where extname = 'vector'").fetchone()
    if not found:
        return "pgvector is missing in this database; as a superuser run there: create extension vector."
    if tuple(int(part) for part in str(found[0]).split(".")[:2]) < PGVECTOR_MIN:
        return f"pgvector {found[0]} is too old; install 0.8 or newer, then run: alter extension vector update."
    return ""


def _role_trouble(name: str, connection: type_connection, role: Literal["app", "owner"]) -> str:
    if role == "owner":
        may = connection.execute("select has_schema_privilege('public', 'create')").fetchone()
        return "" if may and may[0] else f"The role of {name} may not create tables; make it the database's owner."
    found = connection.execute(
        """select rolsuper, rolbypassrls, exists(select 1 from pg_class where relowner = r.oid
                  and relnamespace = 'public'::regnamespace) from pg_roles r where rolname = current_user"""
    ).fetchone()
    for is_so, what in zip(found or (), ("is a superuser", "has BYPASSRLS", "owns tables"), strict=False):
        if is_so:
            return f"The role of {name} {what} and could read across tenants; use a plain role that owns nothing."
    return ""


def _database() -> Box:
    trouble = database_trouble("DATABASE_URL", settings.DATABASE_URL, role="app")
    if trouble:
        return Box("Postgres", "bad", trouble, "see the sentence itself")
    return Box("Postgres", "ok", "reached; pgvector is there, the role cannot bypass row security")


def _direct() -> Box:
    """Where no agents are hosted, nothing holds a lock."""
    name = "direct connection"
    trouble = lock_trouble(settings.DATABASE_DIRECT_URL, database_url=settings.DATABASE_URL)
    if trouble and settings.HOSTED_AGENTS:
        return Box(name, "bad", trouble, "see the sentence itself")
    return Box(
        name, "ok", "none, and no agents are hosted here" if trouble else "the server itself, for workers' locks"
    )


def _owner() -> Box:
    if settings.DATABASE_OWNER_URL:
        fix = "give DATABASE_OWNER_URL to the process that migrates, not to web and workers"
        return Box("owner's role", "warn", "this process could change tables", fix)
    return Box("owner's role", "ok", "not known to this process")


def _migrations() -> Box:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError, connection
    from django.db.migrations.executor import MigrationExecutor

    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except (DatabaseError, ImproperlyConfigured) as error:
        return Box("migrations", "bad", str(error).strip().splitlines()[0], "reach the database first")
    if waiting:
        return Box("migrations", "bad", f"{len(waiting)} not applied", "python3 manage.py migrate, as the owner")
    return Box("migrations", "ok", "all applied")


def _idle() -> Box:
    without = "a process frozen inside one keeps its locks for ever"
    return _bounded("idle transactions", "idle_in_transaction_session_timeout", "60s", without=without)


def _locks() -> Box:
    return _bounded("waits for locks", "lock_timeout", "15s", without="a page waits as long as its row is held")


def _bounded(name: str, setting: str, usual: str, *, without: str) -> Box:
    """As a new session of the application has it: set for the role, the database or the server."""
    try:
        with psycopg.connect(settings.DATABASE_URL, connect_timeout=CONNECT_S_MAX) as connection:
            asked = "select setting::int from pg_settings where name = %s"
            found = connection.execute(asked, [setting]).fetchone()
    except psycopg.Error:
        return Box(name, "bad", "the database cannot be asked", "reach the database first")
    if not found or not found[0]:
        return Box(name, "warn", without, f"alter role … set {setting} = '{usual}', see OPERATIONS.md")
    return Box(name, "ok", f"ended after {found[0] / 1000:g} s")


def _clock() -> Box:
    from agentstate.core import clock

    try:
        with psycopg.connect(settings.DATABASE_URL, connect_timeout=CONNECT_S_MAX) as connection:
            found = connection.execute("select clock_timestamp()").fetchone()
    except psycopg.Error:
        return Box("clock", "bad", "the database's clock cannot be read", "reach the database first")
    skew_s = abs((found[0] - clock.now()).total_seconds()) if found else 0.0
    if skew_s > CLOCK_SKEW_S_MAX:
        return Box("clock", "bad", f"{skew_s:.1f} s away from the database's", "run an NTP service on both machines")
    return Box("clock", "ok", f"{skew_s:.2f} s away from the database's")


def _recall() -> Box:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError

    from agentstate.tenants.models import Tenant
    from memory.recall import checking

    try:
        indexes = checking.approximate_indexes()
        # The newest: where somebody is at work.
        checked = [checking.check(tenant.id) for tenant in Tenant.objects.order_by("-id")[:TENANTS_LOOKED_AT]]
    except (DatabaseError, ImproperlyConfigured) as error:
        return Box("recall", "bad", str(error).strip().splitlines()[0], "reach the database and migrate it first")
    if indexes:
        return Box("recall", "bad", f"approximate: {', '.join(indexes)}", "drop it: it loses rows of a tenant silently")
    recalls = [found.recall for found in checked if found.recall is not None]
    if min(recalls, default=1.0) < 1.0:
        return Box(
            "recall", "bad", f"finds {min(recalls):.0%} of what is nearest", "reindex memory_unit, and report it"
        )
    large = sum(found.is_large for found in checked)
    if large:
        return Box(
            "recall", "warn", f"{large} tenants are too large to be searched as a whole", "search by subject there"
        )
    return Box("recall", "ok", f"exact; compared for {len(recalls)} tenants with vectors")


def _policies() -> Box:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError

    from agentstate.tenants.models import Tenant
    from agentstate.tenants.scope import tenant_scope
    from memory.selectors import policies

    name, found = "memory settings", {}
    try:
        for tenant in Tenant.objects.order_by("-id")[:TENANTS_ASKED]:
            with tenant_scope(tenant.id):
                found[tenant.slug] = policies.troubles()
    except (DatabaseError, ImproperlyConfigured) as error:
        return Box(name, "bad", str(error).strip().splitlines()[0], "reach the database and migrate it first")
    bad = [f"{slug}: {each.key} {each.field}".rstrip()[:200] for slug, troubles in found.items() for each in troubles]
    if bad:
        fix = "save it anew on the settings page of memory, or with manage.py memory_policy"
        return Box(name, "warn", f"{len(bad)} values cannot be used and are not in force ({bad[0]})", fix)
    return Box(name, "ok", f"all of {len(found)} tenants can be used")


def _redis() -> Box:
    troubles = [redis_trouble(name, getattr(settings, name)) for name in ("REDIS_URL", "BROKER_URL")]
    trouble = next((trouble for trouble in troubles if trouble), "")
    return (
        Box("Redis", "bad", trouble, "see the sentence itself") if trouble else Box("Redis", "ok", "both URLs reached")
    )


def _eviction() -> Box:
    for name in ("REDIS_URL", "BROKER_URL"):
        policy = _server_setting(getattr(settings, name), "maxmemory-policy")
        if policy not in {"noeviction", ""}:
            return Box("eviction", "bad", f"{name} drops keys ({policy})", "set maxmemory-policy noeviction there")
    return Box("eviction", "ok", "neither server drops keys")


def _separate_servers() -> Box:
    if _server_of(settings.REDIS_URL) == _server_of(settings.BROKER_URL):
        fix = "in production give REDIS_URL and BROKER_URL a server each: a full scratchpad would stop the messages"
        return Box("two Redis servers", "warn", "one server for scratchpad and messages", fix)
    return Box("two Redis servers", "ok", "scratchpad and messages are apart")


def _worker() -> Box:
    return _seen("worker", "start one: celery -A agentstate.celery worker -Q drive,compact,summarise,sweep,deliver")


def _beat() -> Box:
    return _seen("beat", "start one, and only one: celery -A agentstate.beat beat")


def _secret_key() -> Box:
    if len(settings.SECRET_KEY) < 32 or settings.SECRET_KEY == UNSET_SECRET:
        return Box("SECRET_KEY", "bad", "not set, or short", "set 50 random characters, the same for every process")
    return Box("SECRET_KEY", "ok", f"{len(settings.SECRET_KEY)} characters")


def _master_key() -> Box:
    keys = [key for key in settings.MASTER_KEY.split(",") if key]
    if not keys or any(len(key) != 64 or set(key.lower()) - set("0123456789abcdef") for key in keys):
        fix = 'python3 -c "import secrets; print(secrets.token_hex(32))", kept somewhere safe: without it all is lost'
        return Box("master key", "bad", "AGENTSTATE_MASTER_KEY is not 64 hex digits", fix)
    return Box("master key", "ok", "one key" if len(keys) == 1 else f"{len(keys)} keys: a rotation is under way")


def _address() -> Box:
    parts = urlsplit(settings.PUBLIC_URL)
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return Box("address", "bad", f"{settings.PUBLIC_URL} is not https", "set AGENTSTATE_PUBLIC_URL=https://…")
    if parts.hostname not in settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS:
        return Box("address", "bad", f"ALLOWED_HOSTS lacks {parts.hostname}", f"set ALLOWED_HOSTS={parts.hostname}")
    return Box("address", "ok", settings.PUBLIC_URL)


def _embedder() -> Box:
    from agentstate.llm import embedding

    found = embedding.status()
    embedder = embedding.embedder() if found.level == "ok" else None
    try:
        if embedder:
            embedder.ask("Does it answer?")  # loads the model, or asks the endpoint
    except DomainError as error:
        return Box("embedder", "bad", error.message, "mend it; until then memory searches full text only")
    return Box("embedder", found.level, found.words, found.fix)


def _summariser() -> Box:
    from agentstate.llm import summarising

    try:
        return Box("summariser", "ok", summarising.words())
    except DomainError as error:
        return Box("summariser", "bad", error.message, "set OPENAI_BASE_URL, or remove SUMMARY_MODEL")


def _disk() -> Box:
    folder = settings.STATE_DIR if settings.STATE_DIR.exists() else settings.BASE_DIR
    free_bytes = shutil.disk_usage(folder).free
    level: Level = "ok" if free_bytes > DISK_FREE_BYTES_MIN else "bad"
    return Box("disk", level, f"{free_bytes / (1 << 30):.1f} GiB free at {folder}", "free some, or move the folder")


def _server_setting(url: str, name: str) -> str:
    try:
        with redis_client(url) as client:
            return str(client.config_get(name).get(name, ""))
    except (redis.RedisError, ValueError, OSError):
        return ""  # unreachable is another box; managed servers forbid CONFIG


def _server_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return (parts.netloc, parts.path if "unix" in parts.scheme or "socket" in parts.scheme else "")


def _seen(name: str, fix: str) -> Box:
    try:
        with redis_client(settings.REDIS_URL) as client:
            seen = client.get(READY_KEY.format(name=name))
    except (redis.RedisError, ValueError, OSError):
        return Box(name, "bad", "cannot be looked at", "reach Redis first")
    return Box(name, "ok", "took messages lately") if seen else Box(name, "bad", "none was seen", fix)


DATABASE_LOOKS: tuple[Callable[[], Box], ...] = (
    _database,
    _direct,
    _owner,
    _idle,
    _locks,
    _migrations,
    _clock,
    _recall,
    _policies,
)
REDIS_LOOKS: tuple[Callable[[], Box], ...] = (_redis, _eviction, _separate_servers, _worker, _beat)
SETTINGS_LOOKS: tuple[Callable[[], Box], ...] = (_secret_key, _master_key, _address, _disk)
MODEL_LOOKS: tuple[Callable[[], Box], ...] = (_embedder, _summariser)
