"""Search over a tenant: exact, of this tenant only; and the check that would notice if it were not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from agentstate.affairs import deployment
from agentstate.core.errors import Invalid
from agentstate.db import sql
from agentstate.dev.testing import superuser_url
from agentstate.llm import embedding
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Subject
from memory.recall import checking, questions, rows
from memory.recall import tenant as whole
from memory.recall.embedding import embed_batch
from memory.services import subjects
from tests.memory.recall_world import Talk, WordEmbedder

pytestmark = pytest.mark.django_db
CANARY = "xylophone"


@pytest.fixture(autouse=True)
def embedder(monkeypatch: pytest.MonkeyPatch) -> Iterator[WordEmbedder]:
    made = WordEmbedder()
    monkeypatch.setattr(embedding, "embedder", lambda: made)
    questions.forget_failures()
    yield made


def fill(owner: Tenant, *people: str) -> dict[str, Talk]:
    talks = {}
    with tenant_scope(owner.id):
        for name in people:
            talk = talks[name] = Talk(subjects.resolve(external_id=name))
            talk.session((name, f"the {CANARY} of {name}"), (name, "lunch was fine"), (name, "the hound sleeps"))
        cursor, over = "", False
        while not over:
            batch = embed_batch(cursor)
            cursor, over = batch.cursor, batch.is_over
    return talks


def test_hits_come_from_all_subjects_and_name_them(tenant: Tenant) -> None:
    talks = fill(tenant, "ada", "bob")
    with tenant_scope(tenant.id):
        found = whole.search(f"Who has a {CANARY}?")
        assert {hit.subject_id for hit in found.hits} == {talk.subject.id for talk in talks.values()}
        assert found.rung == "bits"  # tokens of each subject open with its own key
        assert {whole.search("puppy", k=1).hits[0].seq} == {3}
        assert "author" not in whole.search(f"What did ada say of the {CANARY}?").hits[0].scores


def test_another_tenants_rows_are_never_read(tenant: Tenant, other_tenant: Tenant) -> None:
    fill(tenant, "ada")
    theirs = fill(other_tenant, "eve", "mallory")
    with tenant_scope(tenant.id):
        found = whole.search(CANARY, k=100)
        assert found.units == 3
        assert not {hit.id for hit in found.hits} & {unit for talk in theirs.values() for unit in talk.texts}
        named = [(str(unit), str(talk.subject.id)) for talk in theirs.values() for unit in talk.texts]
        places, read = rows.tokens(named, model="words@1:64", dimensions=64)
        assert (len(places), len(read.ids)) == (0, 0)
    with tenant_scope(other_tenant.id):
        assert whole.search(CANARY, k=100).units == 6


def test_a_tenants_words_do_not_change_anothers_scores(tenant: Tenant, other_tenant: Tenant) -> None:
    """idf is the tenant's own: a score would tell how often a word stands elsewhere."""
    fill(tenant, "ada", "bob")
    with tenant_scope(tenant.id):
        before = [(hit.id, hit.score) for hit in whole.search(CANARY).hits]
    fill(other_tenant, "eve", "mallory", "trent")
    with tenant_scope(tenant.id):
        assert [(hit.id, hit.score) for hit in whole.search(CANARY).hits] == before


def test_a_subject_that_is_being_erased_is_not_searched(tenant: Tenant) -> None:
    talks = fill(tenant, "ada", "bob")
    with tenant_scope(tenant.id):
        Subject.objects.filter(id=talks["bob"].subject.id).update(status="erasing")
        assert {hit.subject_id for hit in whole.search(CANARY).hits} == {talks["ada"].subject.id}


def test_an_empty_tenant_and_bad_questions(tenant: Tenant) -> None:
    with tenant_scope(tenant.id):
        assert whole.search("anything").hits == []
        for question, k in (("", 5), ("a\0", 5), ("fine", 0)):
            with pytest.raises(Invalid):
                whole.search(question, k=k)


def test_no_scope_no_search() -> None:
    with pytest.raises(Exception, match="no tenant scope"):
        whole.search("anything")


def test_the_check_finds_search_exact(tenant: Tenant, other_tenant: Tenant) -> None:
    fill(tenant, "ada", "bob", "cleo", "dora", "emil")
    assert checking.approximate_indexes() == []
    assert checking.check(tenant.id) == checking.Checked(recall=1.0, units=15)
    assert checking.check(other_tenant.id) == checking.Checked(recall=None, units=0)
    box = deployment._recall()
    assert (box.level, box.found) == ("ok", "exact; compared for 1 tenants with vectors")


def test_the_check_notices_a_search_that_loses_rows(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tenant, "ada", "bob", "cleo", "dora", "emil")
    lossy = rows._UNITS.replace("FROM memory_unit u", "FROM memory_unit u JOIN lost l ON l.id = u.id")
    with tenant_scope(tenant.id):
        sql.execute("CREATE TEMPORARY TABLE lost ON COMMIT DROP AS SELECT id FROM memory_unit WHERE seq < 3")
        monkeypatch.setattr(rows, "_UNITS", lossy)
        found = checking.check(tenant.id)
    assert found.recall is not None and found.recall < 1
    monkeypatch.setattr(checking, "check", lambda tenant_id: found)
    assert deployment._recall().level == "bad"


@pytest.mark.parametrize("method", ["hnsw", "ivfflat"])
def test_the_check_notices_an_approximate_index(method: str) -> None:
    with psycopg.connect(superuser_url("agentstate")) as superuser:
        superuser.execute(
            f"CREATE INDEX sabotage ON memory_unit USING {method} ((vector::vector(8)) vector_cosine_ops)".encode()
        )
        seen = superuser.execute(checking._INDEXES.encode()).fetchall()
        superuser.rollback()
    assert seen == [("sabotage", method)]
    assert checking.approximate_indexes() == []


def test_a_tenant_that_is_too_large_is_said(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "TENANT_RECALL_UNITS", 2)
    fill(tenant, "ada")
    box = deployment._recall()
    assert box.level == "warn" and "too large" in box.found
