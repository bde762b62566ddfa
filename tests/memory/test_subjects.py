"""Subjects: one row for one person, whoever asks first, and by whichever name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from django.db import connection

from agentstate.audit import history
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys, texts
from memory.models import Alias, OwnerKey, Subject
from memory.services import subjects
from memory.services.subjects import AliasIn
from memory.states import SubjectStatus

MAIL = AliasIn("email", "ada@example.test")
PHONE = AliasIn("phone", "+44 20 7946 0000")


@pytest.mark.usefixtures("scope")
class TestOne:
    def test_the_same_names_give_the_same_subject(self) -> None:
        made = subjects.resolve(external_id="c-1", aliases=[MAIL], name="Ada")
        assert subjects.resolve(external_id="c-1") == made
        assert subjects.resolve(aliases=[AliasIn("EMAIL", " ADA@example.test ")]) == made
        assert subjects.find(aliases=[MAIL]) == made
        assert subjects.find(external_id="c-2") is None
        assert Subject.objects.count() == 1

    def test_a_name_learned_later_leads_to_the_same_subject(self) -> None:
        made = subjects.resolve(aliases=[MAIL])
        assert subjects.resolve(external_id="c-1", aliases=[MAIL, PHONE]).id == made.id
        assert subjects.resolve(aliases=[PHONE]).external_id == "c-1"
        assert [entry.action for entry in history.of("subject", made.id)] == [
            "subject.created",
            "subject.alias_added",
            "subject.identified",
            "subject.alias_added",
        ]

    def test_names_of_two_subjects_are_a_conflict_and_change_nothing(self) -> None:
        first, second = subjects.resolve(external_id="c-1"), subjects.resolve(external_id="c-2", aliases=[MAIL])
        with pytest.raises(Conflict) as refused:
            subjects.resolve(external_id="c-1", aliases=[MAIL])
        assert len(refused.value.data["subjects"]) == 2
        with pytest.raises(Conflict, match="another external_id"):
            subjects.resolve(external_id="c-3", aliases=[MAIL])
        with pytest.raises(Conflict, match="belongs to subject_"):
            subjects.add_alias(first.id, MAIL, actor=_system())
        assert Alias.objects.get().subject_id == second.id
        assert Subject.objects.count() == 2

    def test_names_and_aliases_are_sealed_and_open_again(self) -> None:
        made = subjects.resolve(external_id="c-1", aliases=[MAIL], name="Ada Lovelace")
        row, alias = subjects.get(made.id), Alias.objects.get()
        assert b"Ada" not in bytes(row.name) and b"ada@" not in bytes(alias.value)
        assert subjects.name_of(row, keys.existing(row.id)) == "Ada Lovelace"
        assert subjects.name_of(row, None) == "c-1"
        renamed = subjects.rename(made.id, name="Ada King", actor=_system())
        assert subjects.name_of(renamed, keys.existing(row.id)) == "Ada King"
        assert subjects.name_of(subjects.rename(made.id, name="", actor=_system()), keys.existing(row.id)) == "c-1"

    def test_an_alias_goes_and_may_be_taken_by_another(self) -> None:
        first, second = subjects.resolve(aliases=[MAIL]), subjects.resolve(external_id="c-2")
        alias = Alias.objects.get()
        subjects.remove_alias(first.id, alias.id, actor=_system())
        subjects.remove_alias(first.id, alias.id, actor=_system())
        assert subjects.add_alias(second.id, MAIL, actor=_system()).subject_id == second.id
        assert subjects.add_alias(second.id, MAIL, actor=_system()).subject_id == second.id
        assert Alias.objects.count() == 1

    @pytest.mark.parametrize(
        ("names", "field"),
        [
            ({}, "external_id"),
            ({"external_id": " "}, "external_id"),
            ({"external_id": "a\0b"}, "external_id"),
            ({"external_id": "x" * 201}, "external_id"),
            ({"external_id": "\ud800"}, "external_id"),
            ({"aliases": [AliasIn("email", "")]}, "alias.value"),
            ({"aliases": [AliasIn("", "x")]}, "alias.kind"),
            ({"aliases": [AliasIn("email", "x" * 5000)]}, "alias.value"),
            ({"aliases": [AliasIn("n", str(n)) for n in range(51)]}, "aliases"),
            ({"external_id": "c-1", "name": "x" * 5000}, "name"),
        ],
    )
    def test_names_that_cannot_be_kept_are_refused_by_field(self, names: dict[str, object], field: str) -> None:
        with pytest.raises(Invalid) as refused:
            subjects.resolve(**names)  # type: ignore[arg-type]
        assert refused.value.field == field
        assert not Subject.objects.exists()

    def test_nothing_is_written_about_a_subject_that_is_being_erased(self) -> None:
        made = subjects.resolve(external_id="c-1")
        Subject.objects.filter(id=made.id).update(status=SubjectStatus.ERASING)
        for act in (
            lambda: subjects.resolve(external_id="c-1"),
            lambda: subjects.rename(made.id, name="x", actor=_system()),
            lambda: subjects.add_alias(made.id, MAIL, actor=_system()),
        ):
            with pytest.raises(Conflict, match="being erased"):
                act()

    def test_who_may_not_write_changes_nothing(self, victor: Actor) -> None:
        made = subjects.resolve(external_id="c-1", aliases=[MAIL])
        refused: tuple[Callable[[], object], ...] = (
            lambda: subjects.rename(made.id, name="x", actor=victor),
            lambda: subjects.add_alias(made.id, PHONE, actor=victor),
            lambda: subjects.remove_alias(made.id, Alias.objects.get().id, actor=victor),
            lambda: subjects.set_cap(made.id, cap_bytes=5000, actor=victor),
        )
        for act in refused:
            with pytest.raises(Forbidden):
                act()
        assert (Alias.objects.count(), subjects.get(made.id).cap_bytes) == (1, None)

    def test_what_is_not_there_is_not_found(self) -> None:
        with pytest.raises(NotFound):
            subjects.get(uuid4())
        with pytest.raises(NotFound):
            subjects.rename(uuid4(), name="x", actor=_system())


def test_another_tenant_has_subjects_of_its_own(tenant: Tenant, other_tenant: Tenant) -> None:
    found: list[UUID] = []
    for each in (tenant, other_tenant):
        with tenant_scope(each.id):
            found.append(subjects.resolve(external_id="c-1", aliases=[MAIL]).id)
    with tenant_scope(other_tenant.id):
        assert subjects.resolve(aliases=[MAIL]).id == found[1] != found[0]
        with pytest.raises(NotFound):
            subjects.get(found[0])


@pytest.mark.parametrize("names", [{"external_id": "c-1"}, {"aliases": [MAIL, PHONE]}])
def test_resolvers_at_once_get_one_row(committed_db: None, tenant: Tenant, names: dict[str, object]) -> None:
    start = Barrier(6)

    def resolve(_: int) -> UUID:
        try:
            start.wait(10)
            with tenant_scope(tenant.id):
                return subjects.resolve(**names).id  # type: ignore[arg-type]
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(resolve, range(6), timeout=30))
    with tenant_scope(tenant.id):
        assert found == {Subject.objects.get().id} == {OwnerKey.objects.get().owner_id}


@pytest.mark.parametrize(
    ("text", "error"),
    [("", Invalid), (" \n\t\u00a0", Invalid), ("a\0", Invalid), ("\udfff", Invalid), ("é" * 6, TooLarge), (7, Invalid)],
)
def test_text_that_cannot_be_kept_names_its_field(text: str, error: type[Invalid]) -> None:
    with pytest.raises(error) as refused:
        texts.clean(text, field="body", bytes_max=11)
    assert refused.value.field == "body"


def test_text_that_can_be_kept_is_unchanged() -> None:
    for text in (" a \n b", "é" * 5, "漢字 и кириллица", "👩‍🚀", "\u200f‎שלום"):
        assert texts.clean(text, field="body", bytes_max=100) == text
    assert texts.normalised(" \uff21da\u00a0 LOVELACE\n") == "ada lovelace"


def _system() -> Actor:
    from agentstate.tenants import actors

    return actors.system("test")


def test_a_resolver_of_known_names_asks_once(
    scope: None, new_subject: Callable[[str], Subject], django_assert_num_queries: object
) -> None:
    new_subject("c-1")
    with django_assert_num_queries(1):  # type: ignore[operator]
        subjects.resolve(external_id="c-1")
