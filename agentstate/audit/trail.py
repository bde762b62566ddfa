"""Every act on an object goes through here: the change and its audit entry are one transaction, or nothing is.

The order is always: lock the row and read its head, compute, insert, write status and head in one UPDATE. Reading the
head before the lock would fork the chain under contention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import orjson
from django.db import connection, models
from django.db.models.expressions import RawSQL
from django.db.models.sql import UpdateQuery

from agentstate.audit import notes
from agentstate.core.errors import Conflict, NotFound
from agentstate.db import locks, sql
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant

# An object whose newest entry says one of these may be gone; one that is gone without was removed behind our back.
FAREWELLS = frozenset({"deleted", "removed", "erased", "pruned"})
DETAIL_BYTES_MAX = 4096
# The head is the column of the row that is updated. SEQ: where the new entry's number stands among the arguments.
CALL = "agentstate_audit(%s, %s, %s, %s, audit_head, %s, %s, %s, %s, %s, %s::jsonb, %s, %s)"
SEQ = 3
# The head of an object that the same statement inserts, with audit_seq 1.
FIRST = "agentstate_audit(%s, %s, %s, 1, ''::bytea, %s, '', '', %s, %s, %s::jsonb, NULL, %s)"

# Models with the columns audit_head and audit_seq, see tenants.models.Audited.
AnyModel = TypeVar("AnyModel", bound=models.Model)


def transition(
    obj: AnyModel,
    *,
    to: str,
    actor: Actor,
    reason: str = "",
    action: str = "",
    where: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> AnyModel:
    """Move obj from the status it was read with to `to`, with its audit entry; obj itself is brought up to date.

    `where` are further ORM conditions on the row (`version=3`), `set` further fields to write (values or expressions),
    `detail` holds ids, counts and HMACs only, `action` is `to` unless named. Asserts that it is inside a transaction.

    Raises: Conflict with `status` when somebody was first, NotFound, LockTimeout.
    Locks: the row. Two round trips, three with a reason.
    """
    expected, to = str(obj.status), str(to)  # type: ignore[attr-defined]
    seq, status = _lock(obj, "status")
    if status != expected:
        raise Conflict(
            f"This {_name(obj)} is {status} by now, not {expected}: look at it again before you act.",
            status=status,
            expected=expected,
        )
    entry = _entry(obj, seq + 1, action or to, (expected, to), actor=actor, reason=reason, detail=detail)
    if not _write(obj, {"status": to, **(set or {})}, {"status": expected, **(where or {})}, entry):
        raise Conflict(
            f"This {_name(obj)} is {expected}, but it has changed since you looked ({', '.join(where or {})}).",
            status=expected,
            conditions=sorted(where or {}),
        )
    return obj


def record(
    obj: AnyModel, *, action: str, actor: Actor, reason: str = "", detail: Mapping[str, Any] | None = None
) -> AnyModel:
    """Write an audit entry for an act that changes no status: a login, a first use, a farewell before a delete.

    Raises: NotFound, LockTimeout. Locks: the row. Two round trips, three with a reason.
    """
    (seq,) = _lock(obj)
    entry = _entry(obj, seq + 1, action, ("", ""), actor=actor, reason=reason, detail=detail)
    # By hand and not by _write(): this one stands in the way of every effect.
    move = f"UPDATE {_table(obj)} SET audit_seq = %s, audit_head = {CALL} WHERE id = %s RETURNING audit_seq, audit_head"
    written = sql.row(move, [seq + 1, *entry, obj.pk])
    assert written is not None, "the row is locked"
    obj.audit_seq, obj.audit_head = written  # type: ignore[attr-defined]
    return obj


def first(obj: models.Model, *, action: str, actor: Actor, detail: Mapping[str, Any], tenant_id: UUID) -> list[Any]:
    """The arguments of FIRST, for whoever inserts an object together with its first entry."""
    about = [tenant_id, object_type(type(obj)), obj.pk, action]
    return [*about, actor.kind, actor.id, orjson.dumps(dict(detail), default=str).decode(), actor.name]


def object_type(model: type[models.Model]) -> str:
    """How a model is called in the trail: `run`, `approval`, `membership`, `apikey`."""
    return str(model._meta.model_name)


def _name(obj: models.Model) -> str:
    return str(obj._meta.verbose_name)


def _lock(obj: models.Model, *columns: str) -> tuple[Any, ...]:
    """The number of the newest entry, and these columns, as they are while we hold the row."""
    assert connection.in_atomic_block, "an audit entry is written in the transaction of its act"
    wanted = ", ".join(["audit_seq", *columns])
    with locks.translated():
        found = sql.row(f"SELECT {wanted} FROM {_table(obj)} WHERE id = %s FOR NO KEY UPDATE", [obj.pk])
    if found is None:
        raise NotFound(f"This {_name(obj)} is gone.")
    return found


def _entry(
    obj: models.Model,
    seq: int,
    action: str,
    moved: tuple[str, str],
    *,
    actor: Actor,
    reason: str,
    detail: Mapping[str, Any] | None,
) -> list[Any]:
    """The arguments of CALL. The head is not among them: it is the column of the locked row."""
    body = orjson.dumps(dict(detail or {}), default=str).decode()
    assert len(body) <= DETAIL_BYTES_MAX, "detail holds ids, counts and HMACs; text belongs into the reason"
    tenant_id = current_tenant()
    note_id = notes.write(reason, tenant_id=tenant_id) if reason else None
    about = [tenant_id, object_type(type(obj)), obj.pk, seq, action, *moved]
    return [*about, actor.kind, actor.id, body, note_id, actor.name]


def _write(obj: models.Model, values: Mapping[str, Any], where: Mapping[str, Any], entry: list[Any]) -> bool:
    """One UPDATE that also inserts the entry; False when the conditions do not hold.

    The row is locked before this statement, so its snapshot holds the newest version and agentstate_audit() runs
    exactly once: without the lock a concurrent update would make Postgres evaluate the assignment twice.
    """
    head = RawSQL(CALL, entry, output_field=models.BinaryField())  # noqa: S611
    values = {**values, "audit_seq": entry[SEQ], "audit_head": head}
    found = type(obj)._default_manager.filter(pk=obj.pk, **where).order_by()
    query: UpdateQuery = found.query.chain(UpdateQuery)  # type: ignore[assignment]
    query.add_update_values(values)
    statement, args = query.get_compiler("default").as_sql()
    fields: list[Any] = [obj._meta.get_field(name) for name in values]
    returning = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    with locks.translated(), connection.cursor() as cursor:
        cursor.execute(f"{statement} RETURNING {returning}", args)
        written = cursor.fetchone()
    for field, value in zip(fields, written or (), strict=False):
        setattr(obj, field.attname, _as_python(field, value))
    return written is not None


def _table(obj: models.Model) -> str:
    return connection.ops.quote_name(obj._meta.db_table)


def _as_python(field: Any, value: Any) -> Any:
    converted = field.from_db_value(value, None, connection) if hasattr(field, "from_db_value") else value
    return bytes(converted) if isinstance(converted, memoryview) else field.to_python(converted)
