"""What only SQL can say about the tables of checkpoints: rows are written once, bodies are not compressed again."""

from __future__ import annotations

from typing import Any

from django.db import models

from agentstate.tenants.security import SqlConstraint

# The application's grant is UPDATE (body, base_n), so not even compaction can touch a hash; this holds for the owner.
WRITTEN_ONCE = """
CREATE FUNCTION checkpoints_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'checkpoints_blob' THEN  -- put again: it only becomes young again
    IF (NEW.tenant_id, NEW.run_id, NEW.sha, NEW.bytes, NEW.body) IS DISTINCT FROM
       (OLD.tenant_id, OLD.run_id, OLD.sha, OLD.bytes, OLD.body) THEN
      RAISE EXCEPTION 'a blob is written once' USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
  END IF;
  IF coalesce(current_setting('agentstate.compacting', true), '') <> 'on' THEN
    RAISE EXCEPTION 'rows of % are written once', TG_TABLE_NAME
      USING ERRCODE = '42501', HINT = 'only compaction and erasure change them';
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  IF NEW.base_n IS NOT NULL
     OR (NEW.tenant_id, NEW.run_id, NEW.n, NEW.generation, NEW.step_seq, NEW.kind, NEW.schema_version, NEW.sha,
         NEW.chain, NEW.plain_bytes, NEW.fence, NEW.created) IS DISTINCT FROM
        (OLD.tenant_id, OLD.run_id, OLD.n, OLD.generation, OLD.step_seq, OLD.kind, OLD.schema_version, OLD.sha,
         OLD.chain, OLD.plain_bytes, OLD.fence, OLD.created) THEN
    RAISE EXCEPTION 'compaction may turn a frame into a keyframe, and change nothing else' USING ERRCODE = '42501';
  END IF;
  RETURN NEW;
END $$
"""

# The lock is shared with other writers and excludes the run's compaction, which would else drop a blob that it saw
# nobody refer to while we find it present. After our commit its youth protects it until the frame that refers to it
# is committed too. The number of the lock is locks.number("checkpoints.run", run_id).
PUT_BLOB = """
CREATE FUNCTION checkpoints_put_blob(p_run uuid, p_sha bytea, p_bytes int, p_body bytea) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(('x' || encode(substr(sha256(
    'checkpoints.run'::bytea || '\\x00'::bytea || convert_to(p_run::text, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint);
  INSERT INTO checkpoints_blob (run_id, sha, bytes, body) VALUES (p_run, p_sha, p_bytes, p_body)
    ON CONFLICT (run_id, sha) DO UPDATE SET created = clock_timestamp();
END $$
"""


class WrittenOnce(SqlConstraint):
    """A trigger: rows change and go by compaction only (agentstate.compacting = on), and then never in their hashes."""

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        return [
            f"CREATE TRIGGER written_once BEFORE UPDATE OR DELETE ON {quote(model._meta.db_table)} "
            "FOR EACH ROW EXECUTE FUNCTION checkpoints_written_once()"
        ]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"DROP TRIGGER written_once ON {quote(model._meta.db_table)}"]


class ExternalBody(SqlConstraint):
    """Ciphertext does not compress: stored as it is, out of line when large, without an attempt at it."""

    def statements(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"ALTER TABLE {quote(model._meta.db_table)} ALTER COLUMN body SET STORAGE EXTERNAL"]

    def reversal(self, model: type[models.Model], quote: Any) -> list[str]:
        return [f"ALTER TABLE {quote(model._meta.db_table)} ALTER COLUMN body SET STORAGE EXTENDED"]
