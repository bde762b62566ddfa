"""Every act on an object goes through here: the change and its audit entry are one transaction, or nothing is.

The order is always: lock the row and read its head, compute, insert, write status and head in one UPDATE. Reading the
head before the lock would fork the chain under contention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from django.db import connection, models
from django.db.models import F, Func, Value
from django.db.models.sql import UpdateQuery

from agentstate.audit import notes
from agentstate.core.errors import Conflict, NotFound
from agentstate.db import locks
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant

# An object whose newest entry says one of these may be gone; one that is gone without was removed behind our back.
FAREWELLS = frozenset({"deleted", "removed", "erased", "pruned"})
DETAIL_BYTES_MAX = 4096

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
    expected = str(obj.status)  # type: ignore[attr-defined]
    found = _lock(obj, "status")
    if found["status"] != expected:
        raise Conflict(
            f"This {_name(obj)} is {found['status']} by now, not {expected}: look at it again before you act.",
            status=found["status"],
            expected=expected,
        )
    entry = _entry(
        obj, found["audit_seq"] + 1, action or str(to), (expected, str(to)), actor=actor, reason=reason, detail=detail
    )
    conditions = {"status": expected, **(where or {})}
    if not _write(obj, {"status": str(to), **(set or {})}, conditions, seq=found["audit_seq"] + 1, entry=entry):
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
    seq = _lock(obj)["audit_seq"] + 1
    entry = _entry(obj, seq, action, ("", ""), actor=actor, reason=reason, detail=detail)
    _write(obj, {}, {}, seq=seq, entry=entry)
    return obj


def object_type(model: type[models.Model]) -> str:
    """How a model is called in the trail: `run`, `approval`, `membership`, `apikey`."""
    return str(model._meta.model_name)


def _name(obj: models.Model) -> str:
    return str(obj._meta.verbose_name)


def _lock(obj: models.Model, *columns: str) -> dict[str, Any]:
    assert connection.in_atomic_block, "an audit entry is written in the transaction of its act"
    row = type(obj)._default_manager.select_for_update(no_key=True).filter(pk=obj.pk)
    with locks.translated():
        found = row.values("audit_seq", *columns).first()
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
) -> Func:
    """The call that inserts the entry and gives the new head; the head before is the column of the locked row."""
    body = orjson.dumps(dict(detail or {}), default=str)
    assert len(body) <= DETAIL_BYTES_MAX, "detail holds ids, counts and HMACs; text belongs into the reason"
    tenant_id = current_tenant()
    note_id = notes.write(reason, tenant_id=tenant_id) if reason else None
    before = [Value(value) for value in (tenant_id, object_type(type(obj)), obj.pk, seq)]
    after = [Value(value) for value in (action, *moved, actor.kind, actor.id)]
    detail_now = Value(orjson.loads(body), output_field=models.JSONField())
    last = [Value(note_id), Value(actor.name)]
    return Func(
        *(*before, F("audit_head"), *after, detail_now, *last),
        function="agentstate_audit",
        output_field=models.BinaryField(),
    )


def _write(obj: models.Model, values: Mapping[str, Any], where: Mapping[str, Any], *, seq: int, entry: Func) -> bool:
    """One UPDATE that also inserts the entry; False when the conditions do not hold.

    The row is locked before this statement, so its snapshot holds the newest version and agentstate_audit() runs
    exactly once: without the lock a concurrent update would make Postgres evaluate the assignment twice.
    """
    values = {**values, "audit_seq": seq, "audit_head": entry}
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


def _as_python(field: Any, value: Any) -> Any:
    converted = field.from_db_value(value, None, connection) if hasattr(field, "from_db_value") else value
    return bytes(converted) if isinstance(converted, memoryview) else field.to_python(converted)
