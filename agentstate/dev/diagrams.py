"""docs/STATES.md, drawn from the tiers' states: a diagram that is drawn by hand is wrong after the first change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from django.db.models import TextChoices

from agentstate.affairs import states as affairs_states
from memory import states as memory_states
from runs import states

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PATH = CHECKOUT / "docs" / "STATES.md"

HEAD = """\
# States

Written by `python3 manage.py states` from `runs/states.py`, `memory/states.py` and `agentstate/affairs/states.py`;
change it there. A test fails while this file is stale. Every transition of anything but a step is one audited,
conditional update: `WHERE status = <the old one>`.
"""

# (what it means, who moves it on and when)
RUN = {
    "queued": ("may be claimed from `due_at` on", "a worker's claim; pause, cancel"),
    "running": (
        "a worker holds its lease",
        "its worker at the end, at a wait or a pause; another worker when the lease is over or the worker is gone",
    ),
    "waiting": (
        "for a person, a timer, a back-off, a probe or a budget (`waiting_for`)",
        "the decision, the clock; pause, cancel",
    ),
    "paused": ("by a person, an emergency stop or changed code (`waiting_for`)", "resume, lifting the stop; cancel"),
    "in_doubt": ("one of its effects may have happened", "settling the effect; cancel"),
    "succeeded": ("its output stands", "nobody"),
    "failed": ("its error stands; not terminal, because a person can resume it", "resume"),
    "cancelled": ("a person ended it; what it did stays done", "nobody"),
}
STEP = {
    "waiting": ("for a decision or a timer; nothing was called", "the worker that drives the run, once it is decided"),
    "started": ("recorded, and may have been called", "its worker; after a crash its effect class decides"),
    "done": ("its output is recorded for ever", "nobody"),
    "failed": ("it definitely did not happen, or a step without side effects raised", "the next attempt"),
    "in_doubt": ("it may have happened; nobody but a probe or a person may say", "settling it"),
    "rejected": ("a person said no, or nobody answered in time", "nobody"),
    "skipped": ("left out; the name is kept, no act of this version sets it", "nobody"),
}
APPROVAL = {
    "pending": ("the question is open", "the first decision; its time; the end of its run"),
    "approved": ("the call may be made once, as it was shown", "nobody"),
    "edited": ("the call may be made once, with the arguments the person wrote", "nobody"),
    "rejected": ("the agent is told no, with the reason", "nobody"),
    "responded": ("the agent is told this answer in place of the call", "nobody"),
    "expired": ("nobody decided in time; the agent is told so, never `rejected`", "nobody"),
    "withdrawn": ("the run ended first", "nobody"),
}
SUBJECT = {
    "active": ("may be written and recalled", "an erasure"),
    "erasing": ("its keys are destroyed; nothing is written or recalled about it", "nobody: its row goes last"),
}
SESSION = {
    "open": ("takes messages", "its agent or a person closes it; its time"),
    "closed": ("takes no messages", "opening its key again, where the agent's policy says `reopen`"),
    "expired": ("idle too long, or too old", "opening its key again, where the agent's policy says `reopen`"),
}
ITEM = {
    "active": ("may be recalled, and counts against the cap", "the cap, its time, consolidation, a decision"),
    "over_cap": ("left recall when the cap was reached", "consolidation; a restore"),
    "expired": ("its time is over", "a restore"),
    "superseded": ("another item took its place, after a person accepted that", "a restore"),
    "forgotten": ("out of recall by a person, an agent or consolidation; its revisions stay", "a restore"),
}
PROPOSAL = {
    "pending": ("nobody has decided", "a person; the agent's policy, at once, where nothing is replaced by it"),
    "accepted": ("memory was changed by it", "nobody"),
    "rejected": ("memory was not changed", "nobody"),
    "withdrawn": ("what it was about has changed or gone", "nobody"),
}
ERASURE = {
    "planned": ("asked for; its keys go in the same transaction, so only for a moment", "itself"),
    "stopping": ("waits for runs that hold its words to end", "itself, when they have"),
    "erasing": ("keys of runs and rows go, in batches", "itself; back to stopping when a run has begun meanwhile"),
    "verified": ("nothing is left, and the signed receipt says so", "nobody"),
    "failed": ("something was found where nothing may be", "asking for it again"),
}


SETTLING = """\
An approval of the kind `settle` asks whether an effect happened: `approved` means that it happened, `rejected` that it
did not, `responded` that it was given up.
"""
FIRST = {
    "Runs": ("queued",),
    "Steps": ("started", "waiting", "done"),
    "Approvals": ("pending",),
    "Subjects": ("active",),
    "Sessions of memory": ("open",),
    "Items": ("active",),
    "Proposals": ("pending",),
    "Erasures": ("planned",),
}


def document() -> str:
    """The whole file. Raises: KeyError for a status that has no words here."""
    parts = [
        HEAD,
        _chapter("Runs", states.RunStatus, states.RUN_TRANSITIONS, RUN),
        _chapter("Steps", states.StepStatus, states.STEP_TRANSITIONS, STEP),
        "An effect is a step with a key; it has the statuses of a step.\n",
        _chapter("Approvals", states.ApprovalStatus, states.APPROVAL_TRANSITIONS, APPROVAL),
        SETTLING,
        _chapter("Subjects", memory_states.SubjectStatus, memory_states.SUBJECT_TRANSITIONS, SUBJECT),
        _chapter("Sessions of memory", memory_states.SessionStatus, memory_states.SESSION_TRANSITIONS, SESSION),
        _chapter("Items", memory_states.ItemStatus, memory_states.ITEM_TRANSITIONS, ITEM),
        _chapter("Proposals", memory_states.ProposalStatus, memory_states.PROPOSAL_TRANSITIONS, PROPOSAL),
        _chapter("Erasures", affairs_states.ErasureStatus, affairs_states.ERASURE_TRANSITIONS, ERASURE),
    ]
    return "\n".join(parts)


def _chapter(
    title: str,
    statuses: type[TextChoices],
    transitions: Mapping[str, frozenset[str]],
    words: Mapping[str, tuple[str, str]],
) -> str:
    names = [str(name) for name in statuses.values]
    rows = [f"| `{name}` | {words[name][0]} | {words[name][1]} |" for name in names]
    table = ["| status | means | moved on by |", "|---|---|---|", *rows]
    return "\n".join([f"## {title}", "", *_diagram(names, FIRST[title], transitions), "", *table, ""])


def _diagram(names: list[str], first: tuple[str, ...], transitions: Mapping[str, frozenset[str]]) -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", *(f"    [*] --> {name}" for name in first)]
    for name in names:
        following = sorted(str(to) for to in transitions.get(name, frozenset()))
        lines += [f"    {name} --> {to}" for to in following or ["[*]"]]
    return [*lines, "```"]
