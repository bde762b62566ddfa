"""The documents say what is true today: what can be compared with the code is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps

import agentstate
from agentstate.affairs import states as affairs_states
from agentstate.dev import diagrams
from agentstate.dev.demo.paste import PASTE
from agentstate.testing import MemoryStore, run_agent
from memory import states as memory_states
from memory.policies import AgentPolicy, TenantPolicy
from runs import states

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
ARCHITECTURE = DOCS / "ARCHITECTURE.md"
README_LINES_MAX = 150
PICTURE_BYTES_MAX = 150 * 1024
SHIPPED = ("agentstate", "runs", "checkpoints", "memory")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_TEST = re.compile(r"`(?:[\w/.]+::)?(test_\w+)`")
FAILPOINT = re.compile(r"\bregister\(\s*\"([a-z_]+(?:\.[a-z_]+)+)\"")


def documents() -> list[Path]:
    return [README, *sorted(DOCS.rglob("*.md"))]


def test_the_state_diagrams_are_those_of_the_code() -> None:
    assert diagrams.PATH.read_text() == diagrams.document(), "stale: python3 manage.py states"


def test_every_status_has_a_meaning() -> None:
    for words, statuses in (
        (diagrams.RUN, states.RunStatus),
        (diagrams.STEP, states.StepStatus),
        (diagrams.APPROVAL, states.ApprovalStatus),
        (diagrams.SUBJECT, memory_states.SubjectStatus),
        (diagrams.SESSION, memory_states.SessionStatus),
        (diagrams.ITEM, memory_states.ItemStatus),
        (diagrams.PROPOSAL, memory_states.ProposalStatus),
        (diagrams.ERASURE, affairs_states.ErasureStatus),
    ):
        assert set(words) == set(statuses.values)


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len(README.read_text().splitlines()) <= README_LINES_MAX


def test_the_agent_of_the_readme_is_the_one_that_is_tested() -> None:
    """But for empty lines, which a formatter adds."""
    assert without_empty_lines(PASTE) in without_empty_lines(README.read_text())


def test_the_agent_with_memory_of_the_readme_is_given_what_it_kept() -> None:
    [code] = re.findall(r"```python\n(@st\.agent.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"st": agentstate}
    exec(code, names)
    store = MemoryStore()
    for letter in ("Please write to me in German.", "Where is my parcel?"):
        info = run_agent(names["desk"], {"customer": "ada", "letter": letter}, store=store)
    assert info.output == "Wants mail in German.\nuser: Where is my parcel?"


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "images").iterdir())
    assert pictures
    assert {picture.name for picture in pictures if picture.stat().st_size > PICTURE_BYTES_MAX} == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(document: Path) -> None:
    assert [link for link in links(document) if not leads_somewhere(document, link)] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_is_named_exists(document: Path) -> None:
    assert set(NAMED_TEST.findall(document.read_text())) - written_tests() == set()


def test_every_failpoint_has_its_row_in_a_crash_table() -> None:
    text = ARCHITECTURE.read_text()
    assert {name for name in failpoints() if f"`{name}`" not in text} == set()


def test_every_table_has_its_row() -> None:
    tables = {model._meta.db_table for model in apps.get_models() if model.__module__.startswith(SHIPPED)}
    text = ARCHITECTURE.read_text()
    assert len(tables) > 40
    assert {table for table in tables if f"`{table}`" not in text} == set()


def test_every_setting_of_memory_has_its_row_with_its_default() -> None:
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \|", (DOCS / "OPERATIONS.md").read_text(), flags=re.MULTILINE
    )
    told = {
        name.strip("`"): default.strip("`")
        for names, defaults in rows
        for name, default in zip(names.split(", "), defaults.split(", "), strict=False)
    }
    for policy in (AgentPolicy(), TenantPolicy()):
        for name, value in policy.model_dump().items():
            wanted = {None: "none", True: "true"}.get(value, f"{value:g}" if isinstance(value, float) else str(value))
            assert told.get(name) == wanted, name


def test_every_decision_says_why_and_what_follows() -> None:
    for decision in sorted((DOCS / "adr").glob("*.md")):
        text = decision.read_text()
        headings = ("## Context", "## Decision", "## Consequence")
        assert all(heading in text for heading in headings), decision.name


def test_what_is_compared_is_found_at_all() -> None:
    assert len(written_tests()) > 100 and failpoints() and list(links(README))
    assert not leads_somewhere(README, "docs/nothing.md")
    assert not leads_somewhere(README, "docs/STATES.md#no-such-chapter")


def without_empty_lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


def links(document: Path) -> Iterator[str]:
    """Links to files of ours; code blocks are no text."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    yield from (link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:"))


def leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (document.parent / path) if path else document
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(document: Path) -> set[str]:
    """As the usual renderers make them of headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def written_tests() -> set[str]:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    return {name for text in texts for name in re.findall(r"\bdef (test_\w+)", text)}


def failpoints() -> set[str]:
    """Of what is shipped; the drill has some of its own."""
    found = set()
    for package in SHIPPED:
        for path in (ROOT / package).rglob("*.py"):
            if "dev" not in path.relative_to(ROOT).parts:
                found |= set(FAILPOINT.findall(path.read_text()))
    return found
