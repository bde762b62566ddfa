"""What the database itself says about row security: every relation, policy, grant, foreign key and definer function.

The models say what we meant; this reads pg_class, so it also sees what somebody did by hand. Run by the tests and
by `doctor`, as any role: the catalogue is readable to all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps

from agentstate.tenants.security import FOREIGN_TABLES, GlobalTable

Rows = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]  # runs a statement with its arguments, gives all rows

# What Postgres makes of the texts in security.RowSecurity: for everybody, and of a hot table for the application.
_POLICY = "(tenant_id = ( SELECT agentstate_tenant() AS agentstate_tenant))"
_HOT_POLICY = "(tenant_id = (current_setting('agentstate.tenant'::text))::uuid)"

_RELATIONS = """
SELECT c.relname, c.relkind, c.relispartition, c.relrowsecurity, c.relforcerowsecurity,
  EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull),
  has_table_privilege(%s, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    OR has_any_column_privilege(%s, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'),
  has_table_privilege(%s, c.oid, 'TRUNCATE, REFERENCES, TRIGGER'),
  coalesce('security_invoker=true' = ANY (c.reloptions) OR 'security_invoker=on' = ANY (c.reloptions), false)
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname
"""

# Policies that count for the application: those to everybody, and those to a role it is a member of.
_POLICIES = """
SELECT c.relname, p.polname, p.polpermissive AND p.polcmd = '*' AND p.polwithcheck IS NULL
    AND (p.polroles = '{0}'::oid[] AND pg_get_expr(p.polqual, c.oid) = %s
         OR p.polroles = ARRAY[(SELECT r.oid FROM pg_roles r WHERE r.rolname = %s)]
           AND pg_get_expr(p.polqual, c.oid) = %s)
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
WHERE p.polpermissive
  AND EXISTS (SELECT 1 FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(%s, nullif(r, 0), 'MEMBER'))
"""

_FOREIGN_KEYS = """
SELECT c.relname, k.conname
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_attribute mine ON mine.attrelid = k.conrelid AND mine.attname = 'tenant_id'
JOIN pg_attribute theirs ON theirs.attrelid = k.confrelid AND theirs.attname = 'tenant_id'
WHERE k.contype = 'f' AND c.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT 1 FROM unnest(k.conkey, k.confkey) AS pair (m, t)
                  WHERE pair.m = mine.attnum AND pair.t = theirs.attnum)
ORDER BY 1, 2
"""

_DEFINERS = """
SELECT p.proname, has_function_privilege('public', p.oid, 'EXECUTE'),
  EXISTS (SELECT 1 FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%%')
FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class _Relation:
    name: str
    kind: str
    is_partition: bool
    is_secured: bool
    is_forced: bool
    has_tenant: bool
    app_may_use: bool
    app_may_too_much: bool
    is_invoker: bool


def problems(rows: Rows, *, app_role: str) -> list[str]:
    """One sentence for each thing in the database by which a tenant could reach another's rows."""
    relations = [_Relation(*row) for row in rows(_RELATIONS, [app_role] * 3)]
    policies = rows(_POLICIES, [_POLICY, app_role, _HOT_POLICY, app_role])
    found = [problem for relation in relations if (problem := _judge(relation, policies))]
    found += [
        f"{table}: the policy {policy} opens it further"
        for table, policy, right in policies
        if not right and table not in global_tables()  # where a policy can only narrow
    ]
    found += [f"{table}: the foreign key {key} leaves the tenant out" for table, key in rows(_FOREIGN_KEYS, [])]
    for function, is_public, has_path in rows(_DEFINERS, []):
        if is_public:
            found.append(f"{function}: everybody may execute this SECURITY DEFINER function")
        if not has_path:
            found.append(f"{function}: this SECURITY DEFINER function sets no search_path")
    return found


def global_tables() -> set[str]:
    """Tables without a tenant, on purpose."""
    ours = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if any(isinstance(constraint, GlobalTable) for constraint in model._meta.constraints)
    }
    return ours | FOREIGN_TABLES.keys()


def _judge(relation: _Relation, policies: Sequence[Sequence[Any]]) -> str:
    if relation.is_partition:
        return f"{relation.name}: a partition has grants, and no policy of its own" if relation.app_may_use else ""
    if relation.kind in "vmf":
        return _judge_view(relation)
    if relation.app_may_too_much:
        return f"{relation.name}: the application may TRUNCATE it, refer to it or put triggers on it"
    if relation.name in global_tables():
        return ""
    if not relation.has_tenant:
        return f"{relation.name}: no tenant_id NOT NULL, and not among the global tables"
    if not (relation.is_secured and relation.is_forced):
        return f"{relation.name}: row security is not enabled and forced"
    if (relation.name, "tenant", True) not in [tuple(policy) for policy in policies]:
        return f"{relation.name}: its policy does not compare tenant_id with the scope"
    return ""


def _judge_view(relation: _Relation) -> str:
    if relation.kind == "v" and relation.is_invoker:
        return ""
    return f"{relation.name}: a view reads with its owner's rights" if relation.app_may_use else ""
