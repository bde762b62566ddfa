"""Row-level security as Meta.constraints, so that migrations carry it and no model can forget it.

The invariant: whatever the code above the database gets wrong, a row of one tenant is never read or written in the
scope of another. Policies compare tenant_id with agentstate_tenant(), which raises outside a scope; composite
foreign keys keep children with their parents; the application role owns nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models.constraints import BaseConstraint

from agentstate.core.ids import new_id

SWEEPER = "agentstate_sweeper"  # NOLOGIN; owns the functions that cross tenants

# Tables that are not ours and have no tenant: what the application role may do with them.
FOREIGN_TABLES = {
    "django_session": "SELECT, INSERT, UPDATE, DELETE",
    "django_migrations": "SELECT",
    "django_content_type": "SELECT",
    "auth_permission": "SELECT",
    "auth_group": "SELECT",
    "auth_group_permissions": "SELECT",
}


class CurrentTenant(models.Func):
    """agentstate_tenant(): the tenant of the scope, as a column default."""

    function = "agentstate_tenant"
    template = "%(function)s()"
    arity = 0
    output_field: ClassVar[models.Field[Any, Any]] = models.UUIDField()


class SqlConstraint(BaseConstraint):
    """Something of a table that only SQL can say. Subclasses give the statements that make and unmake it."""

    violation_error_message = ""

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        raise NotImplementedError

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        raise NotImplementedError

    def constraint_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> str:
        # After CREATE TABLE, like Django's own conditional unique constraint.
        assert model is not None and schema_editor is not None
        schema_editor.deferred_sql.extend(self.statements(model, schema_editor.quote_name))
        return ""

    def create_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> str:
        assert model is not None and schema_editor is not None
        return "; ".join(self.statements(model, schema_editor.quote_name))

    def remove_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> str:
        assert model is not None and schema_editor is not None
        return "; ".join(self.reversal(model, schema_editor.quote_name))

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """The database does it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SqlConstraint) and self.deconstruct() == other.deconstruct()

    __hash__ = None  # type: ignore[assignment]


class RowSecurity(SqlConstraint):
    """RLS enabled and forced, the tenant's policy, the policy for data migrations, and the application's grants.

    `hot`: of a table that every turn writes. The application's policy asks the setting itself, a third of what the
    function costs. It raises outside a scope as well, in Postgres' words ("agentstate.tenant" is not there, or is no
    uuid), and would do so to an owner that migrates, who has a policy of its own.
    """

    def __init__(self, *, name: str, grants: str = "SELECT, INSERT, UPDATE, DELETE", hot: bool = False) -> None:
        super().__init__(name=name)
        self.grants, self.hot = grants, hot

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        table, app = quote(model._meta.db_table), quote(settings.APP_ROLE)
        # The sub-select is evaluated once per statement, not once per row. No WITH CHECK: it is the same as USING.
        by_function = "USING (tenant_id = (SELECT agentstate_tenant()))"
        by_setting = "USING (tenant_id = current_setting('agentstate.tenant')::uuid)"
        policies = [f"CREATE POLICY tenant ON {table} {by_function}"]
        if self.hot:
            policies = [
                f"CREATE POLICY tenant ON {table} TO {app} {by_setting}",
                f"CREATE POLICY owning ON {table} TO CURRENT_USER {by_function}",
            ]
        return [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            *policies,
            f"CREATE POLICY migrating ON {table} TO CURRENT_USER "
            "USING (current_setting('agentstate.migrating', true) = 'on')",
            f"GRANT {self.grants} ON {table} TO {app}",
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        table = quote(model._meta.db_table)
        return [
            f"REVOKE {self.grants} ON {table} FROM {quote(settings.APP_ROLE)}",
            f"DROP POLICY migrating ON {table}",
            *([f"DROP POLICY owning ON {table}"] if self.hot else []),
            f"DROP POLICY tenant ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ]

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "grants": self.grants, **({"hot": True} if self.hot else {})}


class GlobalTable(SqlConstraint):
    """A table without a tenant, on purpose: the application's grants and nothing else."""

    def __init__(self, *, name: str, grants: str = "SELECT") -> None:
        super().__init__(name=name)
        self.grants = grants

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"GRANT {self.grants} ON {quote(model._meta.db_table)} TO {quote(settings.APP_ROLE)}"]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"REVOKE {self.grants} ON {quote(model._meta.db_table)} FROM {quote(settings.APP_ROLE)}"]

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "grants": self.grants}


class SweeperReads(SqlConstraint):
    """The sweeper role reads these columns of every tenant, for the listed definer functions. It never writes."""

    def __init__(self, *, name: str, columns: list[str] | tuple[str, ...]) -> None:
        super().__init__(name=name)
        self.columns = list(columns)

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        table, columns = quote(model._meta.db_table), ", ".join(map(quote, self.columns))
        return [
            f"CREATE POLICY sweeper ON {table} FOR SELECT TO {SWEEPER} USING (true)",
            f"GRANT SELECT ({columns}) ON {table} TO {SWEEPER}",
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        table, columns = quote(model._meta.db_table), ", ".join(map(quote, self.columns))
        return [
            f"REVOKE SELECT ({columns}) ON {table} FROM {SWEEPER}",
            f"DROP POLICY sweeper ON {table}",
        ]

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "columns": self.columns}


class TenantFK(SqlConstraint):
    """(tenant_id, column) references the parent's (tenant_id, id): a child cannot name a parent of another tenant.

    Stands beside a plain UUID column, or beside models.ForeignKey(..., db_constraint=False); `to` is its table.
    Checks of foreign keys ignore row security, which is why the tenant must be in the key.
    """

    def __init__(self, *, name: str, field: str, to: str, on_delete: str = "NO ACTION") -> None:
        assert on_delete in {"NO ACTION", "CASCADE"}
        super().__init__(name=name)
        self.field, self.to, self.on_delete = field, to, on_delete

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        field = model._meta.get_field(self.field)
        column = quote(field.column)  # type: ignore[union-attr]
        return [
            f"ALTER TABLE {quote(model._meta.db_table)} ADD CONSTRAINT {quote(self.name)} "
            f"FOREIGN KEY (tenant_id, {column}) REFERENCES {quote(self.to)} (tenant_id, id) "
            f"ON DELETE {self.on_delete} DEFERRABLE INITIALLY DEFERRED"
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"ALTER TABLE {quote(model._meta.db_table)} DROP CONSTRAINT {quote(self.name)}"]

    def create_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> str:
        # At the end of the migration: the parent's unique key may be added after this child.
        return self.constraint_sql(model, schema_editor)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "field": self.field, "to": self.to, "on_delete": self.on_delete}


class AppendOnly(SqlConstraint):
    """A trigger that refuses UPDATE and DELETE, for the owner too. The application has no grant for them anyway.

    There is no trigger on TRUNCATE: the application cannot, and the flush between tests must.
    """

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        return [
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {quote(model._meta.db_table)} "
            "FOR EACH ROW EXECUTE FUNCTION agentstate_append_only()"
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"DROP TRIGGER append_only ON {quote(model._meta.db_table)}"]


class NeverUpdated(SqlConstraint):
    """A trigger that refuses UPDATE, of some columns or of any, for the owner too; rows go with their parent.

    A statement that names the column is refused, even when it writes what stands there.
    """

    def __init__(self, *, name: str, columns: list[str] | tuple[str, ...] = ()) -> None:
        super().__init__(name=name)
        self.columns = list(columns)

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        of = f" OF {', '.join(map(quote, self.columns))}" if self.columns else ""
        return [
            f"CREATE TRIGGER never_updated BEFORE UPDATE{of} ON {quote(model._meta.db_table)} "
            "FOR EACH ROW EXECUTE FUNCTION agentstate_append_only()"
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"DROP TRIGGER never_updated ON {quote(model._meta.db_table)}"]

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "columns": self.columns}


class TenantOwned(models.Model):
    """Rows of one tenant, in a table that chooses its own key. The tenant comes from the scope; nobody passes it."""

    tenant_id = models.UUIDField(db_default=CurrentTenant(), editable=False)

    class Meta:
        abstract = True
        constraints = [RowSecurity(name="%(app_label)s_%(class)s_rls")]


class TenantModel(TenantOwned):
    """Rows of one tenant with a UUIDv7.

    Write `class Meta(TenantModel.Meta)` and `constraints = [*TenantModel.Meta.constraints, ...]`.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)

    class Meta:
        abstract = True
        constraints = [
            RowSecurity(name="%(app_label)s_%(class)s_rls"),
            # The target of composite foreign keys.
            models.UniqueConstraint(fields=["tenant_id", "id"], name="%(app_label)s_%(class)s_tenant_id"),
        ]
