"""Does the trail still say what was written? Recomputes every chain, compares every head, recomputes every seal.

Nothing here trusts agentstate_audit(): the hashed text is composed again from the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from itertools import groupby
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import connection, models, transaction

from agentstate.audit import clusters, sealing, trail
from agentstate.audit.models import AuditSeal
from agentstate.db import sql
from agentstate.tenants.scope import tenant_scope

# The first two are the order of the chain; `note` is the digest of the note as it lies there now.
ENTRIES = """
SELECT e.object_type, e.object_id, e.object_seq, e.sha, e.note_id, e.note_sha, sha256(n.body),
  json_build_array(e.tenant_id, e.object_type, e.object_id, e.object_seq, e.action, e.from_status, e.to_status,
    e.actor_kind, e.actor_id, e.actor_name, (extract(epoch FROM e.at) * 1000000)::bigint, e.detail, e.note_id,
    encode(e.note_sha, 'hex'))::text
FROM audit_entry e LEFT JOIN audit_note n ON n.id = e.note_id
ORDER BY e.object_type, e.object_id, e.object_seq
"""
HEADS = """
SELECT o.id, o.audit_seq, coalesce(e.object_seq, 0) FROM {table} o LEFT JOIN LATERAL (
  SELECT x.object_seq, x.sha FROM audit_entry x WHERE x.object_type = %s AND x.object_id = o.id
  ORDER BY x.object_seq DESC LIMIT 1) e ON true
WHERE {own} AND (coalesce(e.object_seq, 0) <> o.audit_seq OR coalesce(e.sha, ''::bytea) <> o.audit_head)
"""
GONE = """
SELECT e.object_id, e.object_seq FROM (
  SELECT DISTINCT ON (object_id) object_id, object_seq, action FROM audit_entry WHERE object_type = %s
  ORDER BY object_id, object_seq DESC) e
WHERE NOT e.action = ANY(%s) AND NOT EXISTS (SELECT FROM {table} o WHERE o.id = e.object_id)
"""
WINDOWS = """
SELECT s.id, count(e.id), sha256(coalesce(string_agg(e.sha, ''::bytea ORDER BY e.id), ''::bytea))
FROM audit_seal s LEFT JOIN audit_entry e
  ON e.epoch = s.epoch AND ((e.xid >= s.from_xid AND e.xid < s.to_xid AND e.id <= s.last_id) OR e.id > s.after_id)
GROUP BY s.id ORDER BY s.seq
"""
# How many entries are old enough to be under a seal. Between a restore and the next seal, entries get small numbers
# and no seal yet; they are those with greater ids.
SEALABLE = """
SELECT count(*) FROM audit_entry e
WHERE (e.epoch < %s OR (e.epoch = %s AND e.xid < %s)) AND (%s OR e.id <= %s)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where the trail and its proof disagree. `seq` is of the entry or the seal."""

    kind: str  # changed, missing, tail, gone, note, unknown, seal
    object_type: str
    object_id: str
    seq: int
    text: str

    def __str__(self) -> str:
        return f"{self.object_type} {self.object_id} #{self.seq}: {self.text}"


def verify(tenant_id: UUID, *, anchors: Mapping[int, str] | None = None) -> list[Finding]:
    """What does not verify in a tenant's trail; empty is good. Reads one moment, in bounded memory.

    `anchors` are roots noted elsewhere, in hex by the seal's seq: only those can show that the newest seals were cut
    off together with what they sealed.
    """
    with _one_moment(tenant_id):
        return [*_chains(), *_heads(), *_seals(tenant_id), *_anchored(anchors or {})]


def audited_models() -> list[type[models.Model]]:
    """Every model whose rows carry the head of a chain."""
    wanted = {"audit_head", "audit_seq"}
    return [model for model in apps.get_models() if wanted <= {field.name for field in model._meta.fields}]


@contextmanager
def _one_moment(tenant_id: UUID) -> Iterator[None]:
    nested = connection.in_atomic_block
    with transaction.atomic():
        if not nested:  # heads and entries are read by several statements, and objects move meanwhile
            sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with tenant_scope(tenant_id):
            yield


def _chains() -> Iterator[Finding]:
    for (object_type, object_id), entries in groupby(sql.stream(ENTRIES), key=lambda row: row[:2]):
        before, last = b"", 0
        for _, _, seq, sha, note_id, note_sha, note_sha_now, text in entries:
            if seq != last + 1:
                yield _finding("missing", object_type, object_id, seq, f"{seq - last - 1} before it are missing")
            elif sha256(before + text.encode()).digest() != sha:
                yield _finding("changed", object_type, object_id, seq, "it, or the one before it, was changed")
            if note_id is not None and note_sha != note_sha_now:
                yield _finding("note", object_type, object_id, seq, "its reason was changed or removed")
            before, last = sha, seq


def _heads() -> Iterator[Finding]:
    known = {trail.object_type(model): model for model in audited_models()}
    for (name,) in sql.rows("SELECT DISTINCT object_type FROM audit_entry"):
        if name not in known:
            yield _finding("unknown", name, "", 0, "no such kind of object has a trail")
    for name, model in known.items():
        # A tenant's own row lies in a table that all tenants read.
        own = "true" if _has_tenant(model) else "o.id = (SELECT agentstate_tenant())"
        table = connection.ops.quote_name(model._meta.db_table)
        for object_id, seq, found in sql.rows(HEADS.format(table=table, own=own), [name]):
            yield _finding("tail", name, object_id, seq, f"its head is of entry {seq}, the newest here is {found}")
        for object_id, seq in sql.rows(GONE.format(table=table), [name, list(trail.FAREWELLS)]):
            yield _finding("gone", name, object_id, seq, "it is gone, and its newest entry does not say so")


def _seals(tenant_id: UUID) -> Iterator[Finding]:
    windows = sql.stream(WINDOWS)
    last: AuditSeal | None = None
    sealed = 0
    for (_, n, digest), seal in zip(windows, AuditSeal.objects.order_by("seq").iterator(), strict=True):
        text = _judge(seal, last, n=n, digest=digest)
        if not text and not compare_digest(bytes(seal.mac), sealing.mac_of(tenant_id, bytes(seal.root))):
            text = "it was not made with this tenant's key"
        if text:
            yield _finding("seal", "seal", tenant_id, seal.seq, text)
        last, sealed = seal, sealed + n
    if last and (strays := _sealable(last) - sealed):
        yield _finding("seal", "seal", tenant_id, last.seq, f"{strays} entries of its time or before are under no seal")


def _sealable(last: AuditSeal) -> int:
    known = clusters.is_known()
    return int((sql.row(SEALABLE, [last.epoch, last.epoch, last.to_xid, known, last.last_id]) or (0,))[0])


def _judge(seal: AuditSeal, last: AuditSeal | None, *, n: int, digest: bytes) -> str:
    follows = seal.seq == (last.seq + 1 if last else 1) and bytes(seal.previous) == bytes(last.root if last else b"")
    from_xid = last.to_xid if last and last.epoch == seal.epoch else 0
    if not follows or seal.from_xid != from_xid:
        return "the seal before it is missing or was changed"
    if n != seal.n:
        return f"{seal.n} entries were sealed, {n} are here"
    return "" if sealing.root_of(seal, digest) == bytes(seal.root) else "an entry under it, or the seal, was changed"


def _anchored(anchors: Mapping[int, str]) -> Iterator[Finding]:
    roots = {seal.seq: bytes(seal.root).hex() for seal in AuditSeal.objects.filter(seq__in=list(anchors))}
    for seq, root in anchors.items():
        if roots.get(seq) != root:
            yield _finding("seal", "seal", "", seq, "it is not the one that was noted")


def _has_tenant(model: type[models.Model]) -> bool:
    return any(field.name == "tenant_id" for field in model._meta.fields)


def _finding(kind: str, object_type: str, object_id: Any, seq: int, text: str) -> Finding:
    return Finding(kind=kind, object_type=object_type, object_id=str(object_id), seq=seq, text=text)
