"""What of a subject is left: every table of the tenant is searched for its id, whoever wrote the table.

The catalogue names the tables, so one that is added later is searched without anybody thinking of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from django.db import connection

from agentstate.db import sql

# Where the id stays on purpose, and why; said in the plan and on the receipt.
STAYS = {
    "audit_entry": "that acts happened: ids, times, actors and statuses; the reasons people gave are destroyed",
    "affairs_erasure": "that it was erased, when, for whom, and how much: the receipt",
    "memory_ownerkey": "an emptied row, so that nobody makes the key again",
    "memory_upkeep": "how far regular work had come: at most an id, until its next round",
}
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id')
  AND has_table_privilege(c.oid, 'SELECT')
  AND format_type(a.atttypid, NULL) IN ('uuid', 'uuid[]', 'character varying', 'text', 'jsonb', 'character varying[]')
ORDER BY c.relname, a.attnum"""
_TESTS = {
    "uuid": "{column} = ANY(%(ids)s)",
    "uuid[]": "{column} && %(ids)s",
    "jsonb": "replace({column}::text, '-', '') ~ %(hex)s",
    "character varying": "replace({column}, '-', '') ~ %(hex)s",
    "text": "replace({column}, '-', '') ~ %(hex)s",
    "character varying[]": "replace({column}::text, '-', '') ~ %(hex)s",
}


def tables() -> dict[str, dict[str, str]]:
    """Every table of tenants that we may read: its columns that can hold an id, with their types."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for table, column, kind in sql.rows(_COLUMNS):
        found[table][column] = kind
    return dict(found)


def search(ids: Sequence[UUID], *, but: Iterable[str] = STAYS, besides: UUID | None = None) -> dict[str, int]:
    """Rows that name one of these ids, by `table.column`; only places where there are any. One read of each table.

    `besides`: rows of another subject than this one are theirs, and not counted. Asserts a tenant scope.
    """
    if not ids:
        return {}
    given = {"ids": list(ids), "hex": "|".join(each.hex for each in ids), "subject": besides}
    found: dict[str, int] = {}
    for table, columns in tables().items():
        if table not in set(but):
            found |= _in_table(table, columns, given, own=besides is not None and "subject_id" in columns)
    return found


def staying(subject_id: UUID) -> dict[str, int]:
    """Rows that name the subject where they may."""
    known = tables()
    given = {"ids": [subject_id], "hex": subject_id.hex, "subject": None}
    found: dict[str, int] = defaultdict(int)
    for table in STAYS:
        for place, count in _in_table(table, known.get(table, {}), given, own=False).items():
            found[place.partition(".")[0]] += count
    return dict(found)


def _in_table(table: str, columns: dict[str, str], given: Mapping[str, object], *, own: bool) -> dict[str, int]:
    quote = connection.ops.quote_name
    ids: Sequence[UUID] = given["ids"]  # type: ignore[assignment]
    # Of many ids only the typed columns are searched: they are sessions, which no text names.
    kinds = _TESTS if len(ids) == 1 else ("uuid", "uuid[]")
    wanted = [name for name, kind in columns.items() if name != "tenant_id" and kind in kinds]
    if not wanted:
        return {}
    own_rows = "(subject_id IS NULL OR subject_id = %(subject)s) AND " if own else ""
    tests = [f"count(*) FILTER (WHERE {own_rows}{_TESTS[columns[name]].format(column=quote(name))})" for name in wanted]
    row = sql.row(f"SELECT {', '.join(tests)} FROM {quote(table)}", given)
    assert row is not None
    return {f"{table}.{name}": count for name, count in zip(wanted, row, strict=True) if count}
