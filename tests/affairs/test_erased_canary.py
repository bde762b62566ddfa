"""After an erasure no copy of anything holds a word of the subject, and nothing that is left opens with any key.

The search does not know where an erasure writes: it reads a dump of the database, all of Redis and its files, and every
log; and it tries every key of the tenant on every sealed value, whatever row that belongs to. Before the erasure the
same search has to find the word in each place where words can go.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis as redis_client
import zstandard
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from agentstate.affairs import erasing
from agentstate.affairs.states import ErasureStatus
from agentstate.audit import notes
from agentstate.core.errors import Corrupt
from agentstate.crypto import sealing
from agentstate.db import sql
from agentstate.dev.servers import DATABASE, _postgres_binary
from agentstate.dev.testing import ROOT_VARIABLE, superuser_url
from agentstate.notify import outbox
from agentstate.tenants import keyring
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys as run_keys
from checkpoints import reading
from tests.affairs.erasable import Person, Town

WORD = "Kanarius"
NONCE = slice(1, 13)
TAG_BYTES = 16
BYTEA = """
SELECT table_name, column_name FROM information_schema.columns c JOIN pg_class p ON p.relname = c.table_name
WHERE table_schema = 'public' AND data_type = 'bytea' AND p.relkind = 'r' ORDER BY 1, 2"""
# Every place in which a word of hers is sealed; a place that is missing here would make the search blind for it.
PLACES = {
    "audit_note.body",
    "checkpoints_blob.body",
    "checkpoints_frame.body",
    "memory_alias.value",
    "memory_author.name",
    "memory_itemrevision.facts",
    "memory_itemrevision.reason",
    "memory_itemrevision.text",
    "memory_message.text",
    "memory_progressversion.body",
    "memory_progressversion.reason",
    "memory_proposal.body",
    "memory_proposal.why",
    "memory_recallquestion.text",
    "memory_session.title",
    "memory_subject.name",
    "memory_summary.text",
    "memory_unittokens.body",
    "redis buffer",
    "redis pad",
    "runs_approval.proposal",
    "runs_event.body",
    "runs_run.input",
    "runs_run.output",
    "runs_step.input",
    "runs_step.output",
}


@pytest.fixture
def town(committed_db: None, alice: Actor) -> Town:
    return Town(alice)


def test_no_word_of_it_is_left_anywhere(town: Town, redis: redis_client.Redis) -> None:
    ada, ben = town.settle("ada", WORD), town.settle("ben", "Benedikt")
    plain = {place for place, text in copies(redis) if holds(text, WORD)}
    assert {"dump", "redis aof"} & plain == {"dump"}, "the names of its sessions stand in the clear"
    assert opened(town.tenant_id, redis, WORD) >= PLACES
    assert opened(town.tenant_id, redis, "Benedikt") >= PLACES

    begun = erasing.erase(ada.subject.id, actor=town.actor, reason=f"{WORD} wrote", confirm="ada", wait_s=0.5)
    town.lose_worker(ada.runs["driven"])
    done = erasing.go_on(town.tenant_id, begun.id, for_s=30)
    assert done.status == ErasureStatus.VERIFIED, done.problem

    found = [(place, around(text, WORD)) for place, text in copies(redis) if holds(text, WORD)]
    assert found == []
    # The one text that stays is the admin's: why it was erased.
    assert opened(town.tenant_id, redis, WORD) == {"audit_note.body"}
    with tenant_scope(town.tenant_id):
        notes.erase(reason_of(done.id))
    assert opened(town.tenant_id, redis, WORD) == set()
    assert opened(town.tenant_id, redis, "Benedikt") >= PLACES
    the_other_still_reads(town, ben)


def copies(redis: redis_client.Redis) -> Iterator[tuple[str, bytes]]:
    """A dump of the database, every key and value of Redis, the files it leaves, and every log of the servers."""
    pg_dump = str(Path(_postgres_binary("postgres")).with_name("pg_dump"))
    dumped = subprocess.run([pg_dump, superuser_url(DATABASE)], capture_output=True, timeout=60, check=True)
    yield "dump", dumped.stdout
    yield "redis", b"\n".join(b"%r %r" % (key, value) for key, value in in_redis(redis))
    yield "redis aof", b"".join(files_of(redis))
    logs = list(Path(os.environ[ROOT_VARIABLE]).rglob("*.log"))
    assert logs
    yield "logs", b"".join(log.read_bytes() for log in logs)


def in_redis(redis: Any) -> Iterator[tuple[bytes, bytes]]:
    for key in redis.scan_iter():
        kind = redis.type(key)
        if kind == b"hash":
            yield from ((key, value) for pair in redis.hgetall(key).items() for value in pair)
        elif kind == b"zset":
            yield from ((key, value) for value in redis.zrange(key, 0, -1))
        elif kind == b"string":
            yield key, redis.get(key) or b""
        elif kind == b"list":
            yield from ((key, value) for value in redis.lrange(key, 0, -1))
        elif kind == b"set":
            yield from ((key, value) for value in redis.smembers(key))
        else:
            raise AssertionError(f"{key!r} is a {kind!r}: nobody searches it")


def files_of(redis: Any) -> Iterator[bytes]:
    """As they stand after a rewrite: appending was switched on for it."""
    redis.config_set("appendonly", "yes")
    try:
        redis.save()
        for _ in range(200):
            state = redis.info("persistence")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                break
            time.sleep(0.05)
        folder = Path(redis.config_get("dir")["dir"])
        found = [path for path in folder.rglob("*") if path.suffix in (".rdb", ".aof", ".manifest")]
        assert {path.suffix for path in found} >= {".rdb", ".manifest"}
        yield from (path.read_bytes() for path in found)
    finally:
        redis.config_set("appendonly", "no")


def holds(text: bytes, word: str) -> bool:
    """In any case, and as bytea shows it."""
    low = text.lower()
    return any(
        each in low
        for each in (word.lower().encode(), word.encode().hex().encode(), word.lower().encode().hex().encode())
    )


def around(text: bytes, word: str) -> bytes:
    place = text.lower().find(word.lower().encode())
    return text[max(0, place - 200) : place + 60]


def opened(tenant_id: UUID, redis: redis_client.Redis, word: str) -> set[str]:
    """The places in which a sealed value opens with any key of the tenant and holds the word."""
    keys = every_key(tenant_id)
    assert len(keys) >= 2
    return {place for (place, value), key in product(sealed_values(redis), keys) if word.encode() in forced(key, value)}


def every_key(tenant_id: UUID) -> set[bytes]:
    """All that the tenant's ring can unwrap: of subjects, documents, runs, reasons and notices."""
    found: set[bytes] = set()
    with tenant_scope(tenant_id):
        for table, owner, bound in (
            ("memory_ownerkey", "owner_id", "memory_ownerkey"),
            ("checkpoints_runkey", "run_id", "checkpoints_runkey"),
            ("audit_note", "id", notes.TABLE),
            ("notify_outbox", "id", outbox.TABLE),
        ):
            for owner_id, wrapped in sql.rows(f"SELECT {owner}, wrapped FROM {table} WHERE wrapped <> ''"):
                aad = sealing.aad(tenant_id, bound, owner_id)
                found.add(keyring.unwrap_key(tenant_id, bytes(wrapped), aad=aad))
    return found


def sealed_values(redis: redis_client.Redis) -> list[tuple[str, bytes]]:
    found = []
    with psycopg.connect(superuser_url(DATABASE)) as connection:
        for table, column in connection.execute(BYTEA).fetchall():
            # The parent of partitions is none of them.
            name = "runs_event" if table.startswith("runs_event") else table
            query = f"SELECT {column} FROM {table} WHERE length({column}) > 29".encode()
            found += [(f"{name}.{column}", bytes(value)) for (value,) in connection.execute(query)]
    for key, value in in_redis(redis):
        last = key.rpartition(b":")[2].decode()
        found += [(f"redis {last}", value), (f"redis {last}", value[48:])]  # a buffered entry has a header
    return [(place, value) for place, value in found if value[:1] in (b"\x01", b"\x02") and len(value) > 29]


def forced(key: bytes, value: bytes) -> bytes:
    """The plaintext under this key, whatever row the value was bound to; noise for another key."""
    counter = value[NONCE] + (2).to_bytes(4, "big")  # where GCM begins to count for the text
    decryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor()
    plain = decryptor.update(value[13:-TAG_BYTES])
    at = plain.find(zstandard.FRAME_HEADER[:4], 0, 64)
    if at < 0:
        return plain
    try:
        return plain + zstandard.ZstdDecompressor().decompress(plain[at:], max_output_size=2**24)
    except zstandard.ZstdError:
        return plain


def reason_of(erasure_id: UUID) -> UUID:
    (found,) = sql.rows("SELECT note_id FROM audit_entry WHERE object_id = %s AND note_id IS NOT NULL", [erasure_id])
    return UUID(str(found[0]))


def the_other_still_reads(town: Town, ben: Person) -> None:
    with tenant_scope(town.tenant_id):
        for run_id in ben.run_ids.values():
            run_keys.existing(run_id)
            try:
                reading.newest(town.tenant_id, run_id)
            except Corrupt as error:
                raise AssertionError(error.message) from error
