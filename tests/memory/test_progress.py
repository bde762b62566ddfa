"""Progress documents: six headings, every version kept, bounded, and nothing lost between Markdown and sections."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from agentstate.core.ids import new_id
from agentstate.core.limits import PROGRESS_BYTES_MAX
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys, progress_sections
from memory.models import Progress, ProgressVersion, Subject
from memory.progress_sections import HEADINGS, Sections, parse, render
from memory.selectors import progress as reads
from memory.services import progress, sessions
from memory.sources import Source

DOCUMENT = """
# Goal
Write the notes on battery prices.

## Done
- read source 1
- read source 2

## Blocked by

## Next
1. Summarise source 3
### by hand
## Context:
```sh
# Done
echo "## Next"
```
## DO NOT REPEAT ##
Source 2 is behind a login.
"""


def test_markdown_becomes_sections_and_back(scope: None, agent: Actor) -> None:
    written = progress.write("notes", DOCUMENT, actor=agent).progress
    sections = written.sections
    assert sections.goal == "Write the notes on battery prices."
    assert sections.done == "- read source 1\n- read source 2" and sections.blocked_by == ""
    assert sections.next == "1. Summarise source 3\n### by hand"
    assert sections.context == '```sh\n# Done\necho "## Next"\n```'
    assert sections.do_not_repeat == "Source 2 is behind a login."
    assert [line for line in written.body.split("\n") if line.startswith("## ")][:3] == [
        "## Goal", "## Done", "## Blocked by",
    ]  # fmt: skip
    assert progress.write("notes", written.body, actor=agent).progress.version == 1, "the same words change nothing"


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "- a", "1. b", "    code", "### deeper", "#tag", "####", "* * *", "~~~", "```", "> ## q", "x"]
        ),
        st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
    ),
    max_size=8,
).map("\n".join)


@given(texts=st.fixed_dictionaries(dict.fromkeys(HEADINGS, LINES)))
def test_what_was_written_is_read_again(texts: dict[str, str]) -> None:
    try:
        sections = progress_sections.of_mapping(texts)
    except Invalid:
        return
    assert parse(render(sections)) == sections
    assert render(parse(render(sections))) == render(sections)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("# Plan\nx", "no heading"),
        ("hello\n# Goal\n", "before the first heading"),
        ("# Goal\na\n## Goal\nb", "comes twice"),
        ("", "no text"),
        ("# Goal\na\0", "NUL"),
        ("# Goal\n```\nopen", "not closed"),
    ],
)
def test_what_is_no_progress_document_is_refused_with_the_way_out(
    scope: None, agent: Actor, body: str, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        progress.write("notes", body, actor=agent)
    assert progress.read("notes") is None


def test_an_unknown_heading_names_all_that_are_known() -> None:
    with pytest.raises(Invalid) as refusal:
        parse("## Ideas\n")
    assert all(heading in refusal.value.message for heading in HEADINGS.values())


def test_sections_are_named_by_field_or_heading(scope: None, agent: Actor) -> None:
    written = progress.write("notes", {"goal": "a", "Do not repeat": "b"}, actor=agent).progress
    assert written.sections == Sections(goal="a", do_not_repeat="b")
    for bad in ({"plan": "x"}, {"goal": "a", "Goal": "b"}, {"goal": "# Done\n"}):
        with pytest.raises(Invalid):
            progress.write("notes", bad, actor=agent)


def test_every_version_stays_and_can_be_restored(scope: None, agent: Actor) -> None:
    for goal in ("a", "b", "c"):
        progress.write("notes", {"goal": goal}, reason=f"now {goal}", actor=agent)
    newest = progress.read("notes")
    assert newest is not None and (newest.version, newest.sections.goal, newest.reason) == (3, "c", "now c")
    assert [row.sections.goal for row in reads.versions(newest.progress_id)] == ["c", "b", "a"]
    restored = progress.restore(newest.progress_id, version=1, expected_version=3, reason="back", actor=agent)
    assert (restored.progress.version, restored.progress.sections.goal) == (4, "a")
    with pytest.raises(NotFound):
        progress.restore(newest.progress_id, version=9, reason="", actor=agent)


def test_a_writer_who_read_another_version_is_refused(scope: None, agent: Actor) -> None:
    progress.write("notes", {"goal": "a"}, expected_version=0, actor=agent)
    with pytest.raises(Conflict) as refusal:
        progress.write("notes", {"goal": "b"}, expected_version=0, actor=agent)
    assert refusal.value.data["version"] == 1
    progress.write("notes", {"goal": "b"}, expected_version=1, actor=agent)


def test_of_writers_at_once_one_wins(committed_db: None, tenant: Tenant, agent: Actor) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def writing(number: int) -> None:
        try:
            start.wait(timeout=10)
            with tenant_scope(tenant.id):
                progress.write("notes", {"goal": f"{number}"}, expected_version=0, actor=agent)
            outcomes.append("written")
        except Conflict:
            outcomes.append("conflict")
        finally:
            connection.close()

    everyone = [threading.Thread(target=writing, args=(number,)) for number in range(4)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(timeout=30)
    assert sorted(outcomes) == ["conflict"] * 3 + ["written"]


def test_a_replayed_step_writes_once(scope: None, agent: Actor) -> None:
    source = Source(run_id=new_id(), step_seq=4, key="k" * 64)
    first = progress.write("notes", {"goal": "a"}, actor=agent, source=source)
    progress.write("notes", {"goal": "b"}, actor=agent)
    again = progress.write("notes", {"goal": "a"}, actor=agent, source=source)
    assert again.progress.version == first.progress.version == 1
    newest = progress.read("notes")
    assert newest is not None and newest.version == 2 and first.progress.step_seq == 4
    with pytest.raises(Conflict):
        progress.write("notes", {"goal": "c"}, actor=agent, source=source)


def test_the_oldest_done_lines_are_folded_and_it_is_said(scope: None, agent: Actor) -> None:
    lines = [f"- step {number} of many, with a few words about it" for number in range(600)]
    written = progress.write("notes", {"goal": "g", "done": "\n".join(lines)}, actor=agent)
    body = written.progress.body
    assert written.folded > 0 and len(body.encode()) <= PROGRESS_BYTES_MAX
    done = written.progress.sections.done.split("\n")
    assert done[0] == f"- ({written.folded} earlier lines folded; version 0 has them)"
    assert done[1:] == lines[written.folded :], "the newest stay word for word"
    more = progress.write("notes", {"goal": "g", "done": "\n".join([*done, *lines[:60]])}, actor=agent)
    assert more.folded > 0
    first = more.progress.sections.done.split("\n")[0]
    assert first == f"- ({written.folded + more.folded} earlier lines folded; version 1 has them)"


def test_a_document_that_cannot_be_folded_names_its_largest_section(scope: None, agent: Actor) -> None:
    with pytest.raises(TooLarge, match="Context"):
        progress.write("notes", {"goal": "g", "context": "x" * PROGRESS_BYTES_MAX}, actor=agent)
    with pytest.raises(TooLarge):
        progress.write("notes", "# Goal\n" + "x" * (20 * 2**20), actor=agent)


def test_it_is_sealed_with_the_key_of_whom_it_is_about(scope: None, subject: Subject, agent: Actor) -> None:
    sessions.open("ticket-1", subject_id=subject.id, agent="desk", actor=agent)
    written = progress.write("ticket-1", {"goal": "the canary sings"}, actor=agent).progress
    assert (written.subject_id, written.agent) == (subject.id, "desk")
    assert b"canary" not in bytes(ProgressVersion.objects.get().body)
    keys.destroy(subject.id)
    erased = progress.read("ticket-1")
    assert erased is not None and "canary" not in erased.body and erased.sections == Sections()


def test_a_task_without_a_subject_has_a_key_of_its_own(scope: None, agent: Actor) -> None:
    written = progress.write("task", {"goal": "g"}, actor=agent).progress
    assert written.subject_id is None and keys.existing(written.progress_id)


def test_other_tenants_and_viewers_get_nothing(
    tenant: Tenant, other_tenant: Tenant, agent: Actor, victor: Actor
) -> None:
    with tenant_scope(tenant.id):
        written = progress.write("notes", {"goal": "g"}, actor=agent).progress
        with pytest.raises(Forbidden):
            progress.write("notes", {"goal": "h"}, actor=victor)
    with tenant_scope(other_tenant.id):
        assert progress.read("notes") is None and not Progress.objects.exists()
        with pytest.raises(NotFound):
            reads.version(written.progress_id, 1)


def test_documents_are_listed_by_their_last_change(
    scope: None, agent: Actor, new_subject: Callable[[str], Subject]
) -> None:
    for key in ("a", "b", "c"):
        progress.write(key, {"goal": key}, actor=agent)
    progress.write("a", {"goal": "again"}, actor=agent)
    first = reads.latest(rows_max=2)
    rest = reads.latest(rows_max=2, after=first.after)
    assert [row.key for row in first.rows + rest.rows] == ["a", "c", "b"]
