"""Recall: how good it is on written conversations, and how fast over a million units of a hundred tenants.

Quality is the same at every run. For speed the rows are made by SQL: subjects of 5,000, of 1,000 and of about 95 units,
scattered over the table as they would arrive, vectors and words drawn from pools. Everything is measured as the
application's role under row security, from the question's words and vectors to the hits; the model is not asked. The
first search of each subject, which a new connection pays with a fault a page, stands in a line of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from uuid import UUID

import numpy as np
import psycopg

from agentstate.core.ids import new_id
from agentstate.crypto import sealing
from agentstate.dev.bench import world
from agentstate.dev.bench.report import Figure, Line, Remark, percentile
from agentstate.dev.servers import DATABASE
from agentstate.llm.embedding import Question
from agentstate.tenants import keyring
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.recall import checking, questions, searching, words
from memory.recall import tenant as whole

CONVERSATIONS = {"tiny": 1, "quick": 3, "normal": 9, "full": 9}
AT_10 = {"bits": 0.80, "sentence": 0.75, "words": None}  # words: most questions share none with their evidence
DIMENSIONS, TOKENS = 384, 35
MODEL = questions.label("bench", DIMENSIONS)
SMALL = 95  # units of an ordinary subject
VOCABULARY = 3_000
SUBJECT_MS = {1_000: 20.0, 5_000: 80.0}
TENANT_MS = 100.0


Search = Callable[[], searching.Recall]


@dataclass(frozen=True)
class Scale:
    tenants: int
    large: int  # subjects of 5,000 units
    middle: int  # of 1,000
    small: int
    times: int  # searches of each kind


SCALES = {
    "tiny": Scale(tenants=1, large=1, middle=1, small=10, times=3),
    "quick": Scale(tenants=1, large=1, middle=3, small=20, times=40),
    "normal": Scale(tenants=10, large=2, middle=6, small=890, times=60),
    "full": Scale(tenants=100, large=3, middle=30, small=9_967, times=200),
}

_SUBJECTS = """
INSERT INTO memory_subject (tenant_id, id, name, status, item_bytes, pinned_bytes, item_count, session_count,
  message_count, created_at, last_active_at)
SELECT s.tenant, s.id, '', 'active', 0, 0, 0, 0, 0, now(), now()
FROM unnest(%s::uuid[], %s::uuid[]) AS s (id, tenant)"""
# What mentions the outer row is computed for each row, and not once.
_POOLS = f"""
CREATE FUNCTION pg_temp.packed(terms tsvector) RETURNS bytea RETURN {words.PACKED.format(terms="terms")};
CREATE TEMPORARY TABLE vectors AS SELECT p AS n, (SELECT array_agg(random() - 0.5 + 0 * (g + p))
  FROM generate_series(1, {DIMENSIONS}) g)::vector AS v FROM generate_series(0, 1999) p;
CREATE TEMPORARY TABLE texts AS SELECT p AS n, pg_temp.packed(to_tsvector('simple', (
  SELECT string_agg('word' || floor({VOCABULARY} * random() ^ 3 + 0 * (g + p))::int, ' ')
  FROM generate_series(1, 18) g))) AS t FROM generate_series(0, 4999) p"""
# In the order of a hash: a subject's rows are scattered over the table.
_UNITS = f"""
INSERT INTO memory_unit (tenant_id, id, kind, subject_id, session_id, namespace, seq, author_no, sent_at,
  in_recall, words, model, vector)
SELECT s.tenant, md5(s.id::text || g)::uuid, 'message', s.id, md5(s.id::text || g / 20)::uuid, '', g %% 20, g %% 3,
  now() - g * interval '1 hour', true, x.t, '{MODEL}', v.v
FROM unnest(%s::uuid[], %s::uuid[], %s::int[]) AS s (id, tenant, size) CROSS JOIN LATERAL generate_series(1, s.size) g
JOIN texts x ON x.n = (hashtext(s.id::text || g || 't') & 1073741823) %% 5000
JOIN vectors v ON v.n = (hashtext(s.id::text || g || 'v') & 1073741823) %% 2000
ORDER BY md5(s.id::text || g || 'o')"""


@dataclass(frozen=True)
class Subject:
    id: UUID
    tenant_id: UUID
    size: int


def measure(size: str) -> Iterator[Line]:
    yield from _quality(CONVERSATIONS[size])
    yield from _speed(SCALES[size])


def _quality(count: int) -> Iterator[Line]:
    from tests.bench import quality
    from tests.bench.conversations import conversations

    model = quality.local_model()
    tenant_id = _new_tenant("recall-quality")
    with tenant_scope(tenant_id):
        stored = [quality.store(made) for made in conversations("report", count)]
        if model is not None:
            quality.embed(model)
        for rung in quality.RUNGS if model else ("words",):
            found = quality.by_category(quality.measure(stored, rung, model))
            every = found["all"]
            note = f"{every.questions} questions; @5 {every.at_5:.3f}, @20 {every.at_20:.3f}, MRR {every.mrr:.3f}"
            yield Figure(f"recall@10, {rung}", every.at_10, "", AT_10[rung], at_least=True, note=note)
            parts = (f"{name} {found[name].at_10:.2f}" for name in quality.CATEGORIES if found[name].questions)
            yield Remark(f"by category: {', '.join(parts)}")
        units = sum(len(session) for one in stored for session in one.units)
        lots = quality.Quality.of(quality.control(stored, "bits" if model else "words", model))
    note = "evidence drawn by lot: a measure that finds this too is broken"
    yield Figure("recall@10 of the control / chance", lots.at_10 / (10 * count / units), "x", 3.0, note=note)
    if model is None:
        yield Remark("No embedding model is installed: words only.")


def _speed(scale: Scale) -> Iterator[Line]:
    started = time.monotonic()
    subjects = _fill(scale)
    draw = Random(3)  # noqa: S311
    units, took_s = sum(subject.size for subject in subjects), time.monotonic() - started
    yield Remark(f"{units:,} units, {len(subjects):,} subjects, {scale.tenants} tenants, made in {took_s:.0f} s")
    for size, target_ms in SUBJECT_MS.items():
        chosen = [subject for subject in subjects if subject.size == size]
        yield from _timed_in(chosen, scale.times, target_ms, draw)
    small, tenants = _measured(subjects)
    yield from _timed_in(small, scale.times, None, draw)
    _of_tenant(tenants[0], draw)()  # plans
    searches = (_of_tenant(draw.choice(tenants), draw) for _ in range(scale.times))
    yield _timed("search over a tenant", TENANT_MS, searches)
    checked = [checking.check(tenant_id) for tenant_id in tenants]
    found = min(one.recall or 0.0 for one in checked)
    note = f"{checked[0].units:,} units a tenant; compared with every vector"
    yield Figure("search over a tenant, its nearest / exact", found, "", 0.95, at_least=True, note=note)


def _measured(subjects: list[Subject]) -> tuple[list[Subject], list[UUID]]:
    """Ordinary subjects, and tenants that are searched as a whole: the last ones, which have no large subject."""
    small = [subject for subject in subjects if subject.size == SMALL][-100:]
    return small, list(dict.fromkeys(subject.tenant_id for subject in small))[-3:]


def _timed_in(subjects: list[Subject], times: int, target_ms: float | None, draw: Random) -> Iterator[Line]:
    name = f"recall over {subjects[0].size:,} units"
    _in_subject(subjects[0], draw)()  # plans
    yield _timed(f"{name}, the first of each subject", None, (_in_subject(subject, draw) for subject in subjects))
    yield _timed(name, target_ms, (_in_subject(draw.choice(subjects), draw) for _ in range(times)))


def _timed(name: str, target_ms: float | None, searches: Iterable[Search]) -> Line:
    """Each is drawn before its clock starts."""
    ms, parts = list[float](), dict[str, list[float]]()
    for search in searches:
        started = time.perf_counter()
        recall = search()
        ms.append((time.perf_counter() - started) * 1_000)
        assert recall.rung == "bits", recall.degraded_because
        for part, took in recall.took.items():
            parts.setdefault(part, []).append(took)
    halves = ", ".join(f"{part} {percentile(took, 0.5):.1f}" for part, took in parts.items())
    note = f"p50 {percentile(ms, 0.5):.1f}; of its parts: {halves}"
    return Figure(f"{name}, p95", percentile(ms, 0.95), "ms", target_ms, note=note)


def _in_subject(subject: Subject, draw: Random) -> Search:
    asked = _asked(draw)

    def search() -> searching.Recall:
        with tenant_scope(subject.tenant_id):
            return searching.search(subject.id, asked, k=10)

    return search


def _of_tenant(tenant_id: UUID, draw: Random) -> Search:
    asked = _asked(draw)

    def search() -> searching.Recall:
        with tenant_scope(tenant_id):
            return whole.search(asked, k=10)

    return search


def _asked(draw: Random) -> questions.Asked:
    """Eight words, and fourteen tokens in the space of the model."""
    words = " ".join(f"word{int(VOCABULARY * draw.random() ** 3)}" for _ in range(8))
    noise = np.random.default_rng(draw.getrandbits(32))
    vectors = noise.standard_normal((14, DIMENSIONS)).astype(np.float32)
    asked = Question(vectors.mean(axis=0), vectors, noise.integers(0, 30_000, 14).astype(np.uint16))
    return questions.Asked(words, (questions.InModel(MODEL, asked),))


def _fill(scale: Scale) -> list[Subject]:
    tenants = [_new_tenant(f"recall-{n}") for n in range(scale.tenants)]
    sizes = [5_000] * scale.large + [1_000] * scale.middle + [SMALL] * scale.small
    subjects = [Subject(new_id(), tenants[n % len(tenants)], size) for n, size in enumerate(sizes)]
    columns = [[s.id for s in subjects], [s.tenant_id for s in subjects], [s.size for s in subjects]]
    with psycopg.connect(world.superuser_url(DATABASE), autocommit=True) as superuser:
        superuser.execute("SET session_replication_role = replica")  # no foreign keys to check one by one
        superuser.execute(_SUBJECTS.encode(), columns[:2])
        superuser.execute(_POOLS.encode())
        superuser.execute(_UNITS.encode(), columns)
        _copy_tokens(superuser, subjects)
        superuser.execute("VACUUM ANALYZE memory_unit")
        superuser.execute("VACUUM ANALYZE memory_unittokens")
        superuser.execute("CHECKPOINT")  # what was made is not written out while searches are measured
    return subjects


def _copy_tokens(superuser: psycopg.Connection, subjects: list[Subject]) -> None:
    """Of the large subjects, and of all of three tenants: those that are searched. Drawn from a pool of plain rows."""
    small, tenants = _measured(subjects)
    wanted = [s for s in subjects if s.size > SMALL or s.tenant_id in tenants] + small
    noise = np.random.default_rng(9)
    pool = [noise.integers(0, 30_000, TOKENS).astype("<u2").tobytes() + noise.bytes(48 * TOKENS) for _ in range(500)]
    owners = {}
    for subject in wanted:
        with tenant_scope(subject.tenant_id):
            owners[subject.id] = keys.owner_key(subject.id)
    statement = b"COPY memory_unittokens (tenant_id, unit_id, subject_id, model, count, body) FROM STDIN"
    query = "SELECT subject_id, array_agg(id) FROM memory_unit WHERE subject_id = ANY (%s) GROUP BY 1"
    found = superuser.execute(query, [list(owners)]).fetchall()
    by_id = {subject.id: subject for subject in wanted}
    with superuser.cursor().copy(statement) as copy:
        for subject_id, unit_ids in found:
            subject = by_id[subject_id]
            for n, unit_id in enumerate(unit_ids):
                bound = sealing.aad(subject.tenant_id, "memory_unittokens", unit_id)
                body = sealing.seal(owners[subject_id], pool[n % len(pool)], aad=bound, compress=False)
                copy.write_row([subject.tenant_id, unit_id, subject_id, MODEL, TOKENS, body])


def _new_tenant(slug: str) -> UUID:
    tenant = Tenant.objects.create(slug=slug, name=slug)
    keyring.ensure(tenant.id)
    return tenant.id
