"""An export brought in is the same memory again; a hostile file brings in nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from agentstate.audit import verification
from agentstate.audit.models import AuditEntry
from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from agentstate.core.limits import IMPORT_LINE_BYTES_MAX
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.models import Item, Message, Session, Subject
from memory.recall import searching
from memory.services import exporting, importing, items, messages, sessions, subjects
from memory.services.drafts import NewItem
from memory.services.imports.desk import Report, mapped
from memory.services.messages import NewMessage
from tests.affairs.erasable import Person, Town

pytestmark = pytest.mark.django_db
Lines = list[dict[str, Any]]
# What an import makes anew, or leaves out.
ANEW = {"run", "step", "exported_at", "tenant", "sha256", "attribute_hmac"}


@pytest.fixture
def ada(alice: Actor) -> Person:
    return Town(alice).settle("ada", "Adalbert")


def tenant_of(actor: Actor) -> UUID:
    assert actor.tenant_id is not None
    return actor.tenant_id


def exported(actor: Actor, subject_id: UUID) -> bytes:
    return b"".join(exporting.export(tenant_of(actor), subject_id, actor=actor))


def lines(file: bytes) -> Lines:
    return [orjson.loads(line) for line in file.splitlines()]


def sealed(found: Sequence[dict[str, Any]]) -> bytes:
    """A file of these lines whose end fits, so that what is refused is not the end."""
    body = b"".join(orjson.dumps(line) + b"\n" for line in found if line["type"] != "end")
    counts: dict[str, int] = {}
    for line in found:
        if line["type"] != "end":
            counts[line["type"]] = counts.get(line["type"], 0) + 1
    end = {"type": "end", "counts": counts, "sha256": hashlib.sha256(body).hexdigest()}
    return body + orjson.dumps(end) + b"\n"


def bring_in(file: bytes, actor: Actor, **more: Any) -> Report:
    return importing.bring_in(BytesIO(file), actor=actor, **more)


def compared(file: bytes, mapped: Callable[[UUID], UUID] = lambda old: old) -> list[bytes]:
    """The lines but for what is made anew, in an order of their own: rows of one moment have none by their ids."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"kind", "id", "name"}:
                return value["name"]
            return {name: plain(each) for name, each in value.items() if name not in ANEW}
        if isinstance(value, list):
            return [plain(each) for each in value]
        try:
            return str(mapped(UUID(value))) if isinstance(value, str) else value
        except ValueError:
            return value

    found = lines(file)
    authors = {0: ""} | {line["no"]: line["name"] for line in found if line["type"] == "author"}
    for line in found:  # numbers are given anew, so it is compared who they mean
        line.pop("no", None)
        line.update({"author": authors[line["author"]]} if "author" in line else {})
    return sorted(orjson.dumps(plain(line), option=orjson.OPT_SORT_KEYS) for line in found)


def counts(tenant_id: UUID) -> tuple[int, ...]:
    with tenant_scope(tenant_id):
        return tuple(model.objects.count() for model in (Subject, Session, Message, Item))


class TestRoundTrip:
    def test_into_a_fresh_tenant_and_out_again_it_is_the_same(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        file = exported(alice, ada.subject.id)
        types = {line["type"] for line in lines(file)}
        assert types == {
            *("header", "subject", "alias", "author", "session", "message", "summary", "item", "revision"),
            *("proposal", "progress", "progress_version", "question", "injection", "end"),
        }
        report = bring_in(file, charlie)
        assert report.done and report.is_new and report.links_left_out > 0 and report.subject_id is not None
        assert report.subject_id != ada.subject.id
        again = exported(charlie, report.subject_id)
        target = report.subject_id
        with tenant_scope(tenant_of(charlie)):
            wanted = compared(file, lambda old: target if old == ada.subject.id else mapped(target, old))
        assert compared(again) == wanted
        assert not {line["id"] for line in lines(file) if "id" in line} & {
            line["id"] for line in lines(again) if "id" in line
        }

    def test_what_is_said_while_an_export_runs_keeps_it_from_nothing(
        self, ada: Person, alice: Actor, charlie: Actor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session and an author that came after theirs had gone out are nowhere in the file."""

        def meanwhile(tenant_id: UUID, subject_id: UUID) -> Iterator[Any]:
            with tenant_scope(tenant_id):
                known = Session.objects.get(subject_id=subject_id).id
                later = sessions.open("later", subject_id=subject_id, agent="desk", actor=alice).id
                for session_id, author in ((known, ""), (known, "Newcomer"), (known, ""), (later, "")):
                    messages.append(session_id, [NewMessage("user", "Meanwhile.", author=author)], actor=alice)
            return iter(())

        monkeypatch.setattr(exporting, "_PARTS", (*exporting._PARTS[:3], meanwhile, *exporting._PARTS[3:]))
        file = exported(alice, ada.subject.id)
        report = bring_in(file, charlie)
        assert report.done and report.new["session"] == 1 and b"Newcomer" not in file
        with tenant_scope(tenant_of(charlie)):
            said = Message.objects.order_by("seq").values_list("seq", flat=True)
            assert list(said) == [*range(1, 10)], "the seven there were, what waited, and one of somebody who was known"

    def test_what_came_in_is_recalled_and_counted(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        report = bring_in(exported(alice, ada.subject.id), charlie)
        assert report.subject_id is not None
        with tenant_scope(tenant_of(charlie)):
            found = searching.search(report.subject_id, "How many lamps did Adalbert order?")
            assert found.hits
            copy, original = subjects.get(report.subject_id), ada.subject
        with tenant_scope(tenant_of(alice)):
            original = subjects.get(ada.subject.id)
        for name in ("item_bytes", "pinned_bytes", "item_count", "session_count", "message_count", "external_id"):
            assert getattr(copy, name) == getattr(original, name), name
        with tenant_scope(tenant_of(charlie)):
            session = Session.objects.get(subject=copy)
            assert (session.last_seq, session.message_count, session.version) == (7, 6, 2)
            assert session.extracted_seq == 7  # its items came in; they are not learned a second time
            messages.append(session.id, [NewMessage("user", "and on")], actor=charlie)
            kept = items.remember(copy.id, NewItem("Adalbert has a dog."), actor=charlie)
            assert kept.change == "created"
        assert verification.verify(tenant_of(charlie)) == []

    def test_twice_brings_nothing_new(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        file = exported(alice, ada.subject.id)
        bring_in(file, charlie)
        before = counts(tenant_of(charlie))
        report = bring_in(file, charlie)
        assert report.done and not report.is_new and not +report.new
        assert counts(tenant_of(charlie)) == before
        with tenant_scope(tenant_of(charlie)):
            assert AuditEntry.objects.filter(action="subject.imported").count() == 1

    def test_into_its_own_tenant_all_is_known(self, ada: Person, alice: Actor) -> None:
        before = counts(tenant_of(alice))
        report = bring_in(exported(alice, ada.subject.id), alice)
        assert report.done and not +report.new and counts(tenant_of(alice)) == before

    def test_without_an_external_id_the_same_file_finds_its_subject(
        self, ada: Person, alice: Actor, charlie: Actor
    ) -> None:
        found = lines(exported(alice, ada.subject.id))
        found[1]["external_id"] = None
        first, second = (bring_in(sealed(found), charlie) for _ in range(2))
        assert first.subject_id == second.subject_id and not +second.new

    def test_into_another_subject_it_is_a_copy(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        with tenant_scope(tenant_of(charlie)):
            other = subjects.resolve(external_id="someone", actor=charlie)
        report = bring_in(exported(alice, ada.subject.id), charlie, into=other.id)
        assert report.subject_id == other.id and report.new["message"] == 7
        with tenant_scope(tenant_of(charlie)):
            assert Message.objects.exclude(subject_id=other.id).count() == 0
        with pytest.raises(NotFound):
            bring_in(exported(alice, ada.subject.id), charlie, into=ada.subject.id)

    def test_an_export_and_an_import_are_in_the_trail(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        report = bring_in(exported(alice, ada.subject.id), charlie)
        with tenant_scope(tenant_of(alice)):
            assert AuditEntry.objects.get(action="subject.exported").object_id == ada.subject.id
        with tenant_scope(tenant_of(charlie)):
            entry = AuditEntry.objects.get(action="subject.imported")
            assert entry.object_id == report.subject_id and entry.detail["message"] == 7


class TestRehearsal:
    def test_a_dry_run_tells_and_does_nothing(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        file = exported(alice, ada.subject.id)
        told = bring_in(file, charlie, dry_run=True)
        assert not told.done and told.new["message"] == 7 and counts(tenant_of(charlie)) == (0, 0, 0, 0)
        assert bring_in(file, charlie).new == told.new

    def test_conflicts_are_told_and_nothing_is_imported(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        with tenant_scope(tenant_of(charlie)):
            other = subjects.resolve(external_id="other", actor=charlie)
            sessions.open("mail-Adalbert", subject_id=other.id, actor=charlie)
        before = counts(tenant_of(charlie))
        file = exported(alice, ada.subject.id)
        told = bring_in(file, charlie, dry_run=True)
        assert [each for each in told.conflicts if "the session mail-Adalbert is here already" in each]
        with pytest.raises(Conflict, match="Nothing was imported"):
            bring_in(file, charlie)
        assert counts(tenant_of(charlie)) == before

    def test_the_cap_holds_and_says_who_left(self, ada: Person, alice: Actor, charlie: Actor) -> None:
        with tenant_scope(tenant_of(alice)):
            for number in range(3):
                text = " ".join(f"w{number}x{place}" for place in range(250))[:1500]
                items.remember(ada.subject.id, NewItem(text, namespace=f"n{number}"), actor=alice)
        found = lines(exported(alice, ada.subject.id))
        found[1]["cap_bytes"] = 4096
        report = bring_in(sealed(found), charlie)
        assert report.evicted >= 1 and report.cap_bytes == 4096
        with tenant_scope(tenant_of(charlie)):
            assert Subject.objects.get().item_bytes <= 4096


def change(kind: str, **values: Any) -> Callable[[Lines], Lines]:
    def changed(found: Lines) -> Lines:
        place = next(n for n, line in enumerate(found) if line["type"] == kind)
        return [*found[:place], {**found[place], **values}, *found[place + 1 :]]

    return changed


def skipping(kind: str, part: str, version: int) -> Callable[[Lines], Lines]:
    """One at this version and its newest words get the next number: this one is nowhere."""

    def changed(found: Lines) -> Lines:
        one = next(line for line in found if line["type"] == kind and line["version"] == version)
        newest = [line for line in found if line["type"] == part and line[kind] == one["id"]][-1]
        return [{**line, "version": version + 1} if line in (one, newest) else line for line in found]

    return changed


def without_message(seq: int) -> Callable[[Lines], Lines]:
    return lambda found: [line for line in found if line["type"] != "message" or line["seq"] != seq]


HOSTILE: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "another version": (change("header", version=2), "version"),
    "another format": (change("header", format="x"), "format"),
    "no header": (lambda found: found[1:], "header is expected"),
    "two subjects": (lambda found: [*found[:3], found[1], *found[3:]], "about one subject"),
    "an unknown type": (change("alias", type="secret"), "its type is none of"),
    "an unknown field": (change("message", tenant_id=str(uuid4())), "tenant_id"),
    "a foreign session": (change("message", session=str(uuid4())), "its session did not come before"),
    "a foreign author": (change("message", author=99), "author 99 did not come before"),
    "a foreign item": (change("revision", item=str(uuid4())), "its item did not come before"),
    "a foreign document": (change("progress_version", progress=str(uuid4())), "its document did not come before"),
    "an id that is none": (change("message", id="1 OR 1=1"), "id"),
    "a NUL": (change("message", text="a\0b"), "NUL"),
    "no text": (change("message", text=""), "text"),
    "too much text": (change("message", text="x" * 300_000), "262,144"),
    "a role that is none": (change("message", role="root"), "role"),
    "no time zone": (change("message", sent_at="2026-01-01T10:00:00"), "sent_at"),
    "pinned and expiring": (
        change("item", pinned=True, expires_at="2030-01-01T00:00:00Z"),
        "what is pinned does not expire",
    ),
    "an end before the beginning": (change("item", valid_to="1999-01-01T00:00:00Z"), "ends before it begins"),
    "words that are missing": (change("item", version=9), "words of its version 9 are missing"),
    "an older version that is missing": (skipping("item", "revision", 2), "version 2 of the item .* is missing"),
    "a document's older version that is missing": (
        skipping("progress", "progress_version", 1),
        "version 1 of the document .* is missing",
    ),
    "words of a document that are missing": (change("progress", version=9), "of the document .* is missing"),
    "a version above the one in force": (change("revision", version=9), "cannot have a version 9"),
    "a document's version above it": (change("progress_version", version=9), "cannot have a version 9"),
    "a first message that is missing": (without_message(1), "message 1 of the session .* is missing"),
    "a message in the middle that is missing": (without_message(3), "message 3 of the session .* is missing"),
    "a number that leaves a hole": (change("message", seq=90), "message 1 of the session .* is missing"),
    "facts without end": (change("revision", facts={"x": "y" * 3000}), "facts take more"),
    "a change that is none": (change("revision", change="hacked"), "change is one of"),
    "a proposal of anything": (change("proposal", body={"text": "x", "sql": "drop"}), "no sql"),
    "not finite": (change("item", importance=2), "importance"),
}


class TestHostileFiles:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_it_is_refused_with_its_line_and_leaves_nothing(
        self, ada: Person, alice: Actor, charlie: Actor, name: str
    ) -> None:
        damage, said = HOSTILE[name]
        with pytest.raises(Invalid, match=said) as refused:
            bring_in(sealed(damage(lines(exported(alice, ada.subject.id)))), charlie)
        assert refused.value.message.startswith("Line ") and refused.value.data["line"] >= 1
        assert counts(tenant_of(charlie)) == (0, 0, 0, 0)

    @pytest.mark.parametrize(
        ("file", "said"),
        [
            (b"", "ends too early"),
            (b"\n", "not JSON"),
            (b"\x00\xff\xfe", "not JSON"),
            (b"[]\n", "its type is none of"),
            (b'{"type":["header"]}\n', "type"),
            (b'{"a":' * 200 + b"1" + b"}" * 200, "deep"),
        ],
    )
    def test_what_is_no_export_is_refused(self, charlie: Actor, file: bytes, said: str) -> None:
        with pytest.raises(Invalid, match=said):
            bring_in(file, charlie)

    def test_a_line_of_20_mb_is_never_held_whole(self, charlie: Actor) -> None:
        class Endless(BytesIO):
            asked = 0

            def readline(self, size: int | None = -1, /) -> bytes:
                self.asked = max(self.asked, size or -1)
                return b"x" * (size or 0)

        file = Endless()
        with pytest.raises(TooLarge, match="Line 1"):
            importing.bring_in(file, actor=charlie)
        assert file.asked == IMPORT_LINE_BYTES_MAX + 1

    def test_lines_that_are_cut_off_added_or_changed_are_noticed(
        self, ada: Person, alice: Actor, charlie: Actor
    ) -> None:
        file = exported(alice, ada.subject.id)
        whole = file.splitlines(keepends=True)
        for damaged in (
            whole[:-1],
            [*whole[:5], *whole[6:]],
            [*whole, b"{}\n"],
            [line.replace(b"Oslo", b"Rome") for line in whole],
            [*whole[:-2], whole[-1]],
        ):
            with pytest.raises(Invalid):
                bring_in(b"".join(damaged), charlie)
        assert counts(tenant_of(charlie)) == (0, 0, 0, 0)

    def test_an_import_names_no_run_and_no_person_of_ours(self, ada: Person, alice: Actor) -> None:
        found = lines(exported(alice, ada.subject.id))
        found[1]["external_id"], ours = "ada-2", str(uuid4())
        for line in found:
            line.update({"run": ours} if "run" in line else {})
            line.update({"by": {"kind": "user", "id": alice.id, "name": "Alice"}} if "by" in line else {})
            line.update({"key": f"copy-{line['key']}"} if "key" in line else {})
        found = [line for line in found if line["type"] != "alias"]
        report = bring_in(sealed(found), alice)
        again = exported(alice, report.subject_id)  # type: ignore[arg-type]
        assert ours.encode() not in again and alice.id.encode() not in again
        assert {line["by"]["kind"] for line in lines(again) if "by" in line} == {"import"}

    def test_rights(self, ada: Person, alice: Actor, olga: Actor, charlie: Actor) -> None:
        with pytest.raises(Forbidden):
            bring_in(b"", olga)
        with pytest.raises(NotFound):
            exported(charlie, ada.subject.id)
