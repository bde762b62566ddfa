"""SQL functions as migration operations: the scope, the append-only trigger, and those that cross tenants.

Every function that crosses tenants is made with `crossing`, so that the list of them is `git grep crossing(`.
"""

from __future__ import annotations

from django.conf import settings
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from agentstate.tenants.security import SWEEPER

TENANT = """
CREATE FUNCTION agentstate_tenant() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE t text := current_setting('agentstate.tenant', true);
BEGIN
  IF t <> '' THEN RETURN t::uuid; END IF;
  IF current_setting('agentstate.migrating', true) = 'on' THEN RETURN NULL; END IF;
  RAISE EXCEPTION 'no tenant scope' USING ERRCODE = '42501', HINT = 'open tenant_scope(tenant) around this query';
END $$
"""

APPEND_ONLY = """
CREATE FUNCTION agentstate_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '42501';
END $$
"""


def plain(sql: str, *, drop: str) -> migrations.RunSQL:
    """An ordinary function; it runs with the caller's rights, so row security applies. `drop`: its name(arguments)."""
    return migrations.RunSQL(sql, f"DROP FUNCTION {drop}")


class only_application(Operation):  # noqa: N801 - reads as a verb in migrations, like plain
    """Nobody but the application may execute this SECURITY DEFINER function, made just before by RunSQL.

    Postgres lets everybody execute a new function. `signature` is name(argument types).
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, signature: str) -> None:
        self.signature = signature

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Django's models know nothing of it."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        for statement in _execution(self.signature, schema_editor.quote_name(settings.APP_ROLE)):
            schema_editor.execute(statement, None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """The function itself goes away."""

    def describe(self) -> str:
        return f"Let only the application execute {self.signature}"


class crossing(Operation):  # noqa: N801 - reads as a verb in migrations, like plain
    """A SECURITY DEFINER function owned by the sweeper, executable by the application only.

    `signature` is name(argument types); `head` the arguments with names and the RETURNS clause; `body` one SQL
    statement or a PL/pgSQL block. The sweeper sees only what SweeperReads gave it.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, signature: str, *, arguments: str, returns: str, body: str, language: str = "sql") -> None:
        self.signature, self.arguments, self.returns = signature, arguments, returns
        self.body, self.language = body, language

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Django's models know nothing of it."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        for statement in self._statements(schema_editor.quote_name(settings.APP_ROLE)):
            schema_editor.execute(statement, None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        schema_editor.execute(f"DROP FUNCTION {self.signature}", None)

    def describe(self) -> str:
        return f"Make {self.signature}, which reads across tenants"

    def _statements(self, app_role: str) -> list[str]:
        name = self.signature.partition("(")[0]
        return [
            f"CREATE OR REPLACE FUNCTION {name}({self.arguments}) RETURNS {self.returns} LANGUAGE {self.language} "
            # pg_temp last, or a temporary table of the caller would stand in front of ours.
            f"STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $${self.body}$$",
            *_execution(self.signature, app_role),
            # A new owner must be able to create in the schema, for the moment of becoming it.
            f"GRANT CREATE ON SCHEMA public TO {SWEEPER}",
            f"ALTER FUNCTION {self.signature} OWNER TO {SWEEPER}",
            f"REVOKE CREATE ON SCHEMA public FROM {SWEEPER}",
        ]


def _execution(signature: str, app_role: str) -> list[str]:
    return [
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {signature} TO {app_role}",
    ]
