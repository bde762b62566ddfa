"""The feedback fence: nothing that came out of memory or a prompt is stored again; what is new gets through."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from agentstate.core import restating
from agentstate.core.clock import now
from agentstate.core.extract import sentences_of
from agentstate.core.ids import new_id
from agentstate.tenants.actors import Actor
from memory import keys, sealing
from memory.models import Item, ItemRevision, Subject, Summary
from memory.services import editing, fence, items, ledger, messages, prompts, revising, sessions
from memory.services.drafts import ItemChanges, NewItem
from memory.services.items import Kept
from memory.services.ledger import Injected
from memory.services.messages import NewMessage
from memory.sources import Source
from tests.memory import held_out, restatements
from tests.memory.echoes import FRAMES, KNOWN, MORE_FRAMES, NEW, PROMPT, PROMPT_ECHOES

pytestmark = pytest.mark.usefixtures("scope")
REFUSED_SHARE_MAX = 0.02


@pytest.fixture
def known(subject: Subject, alice: Actor) -> list[Item]:
    """What is known about Ada, written by a person."""
    found = [items.remember(subject.id, NewItem(text), actor=alice).item for text, _ in KNOWN]
    assert len({item.id for item in found if item}) == len(KNOWN)
    return [item for item in found if item]


def say(subject: Subject, actor: Actor, text: str, *, role: str = "user", origin: str = "said") -> UUID:
    session = sessions.open("chat", subject_id=subject.id, agent="desk", actor=actor)
    said = messages.append(session.id, [NewMessage(role, text, origin=origin)], actor=actor)
    return said.messages[0][0]


def session_of(subject: Subject, actor: Actor) -> UUID:
    return sessions.open("chat", subject_id=subject.id, agent="desk", actor=actor).id


def given(item: Item, *, run_id: UUID | None = None, session_id: UUID | None = None, version: int = 1) -> None:
    """The ledger says: these words went into a call."""

    class Call:
        def __init__(self) -> None:
            self.run_id, self.step_seq = run_id, 1

    row = Injected("recalled", "item", item.id, 5, version=version, subject_id=item.subject_id)
    ledger.record([row], source=Call() if run_id else None, session_id=session_id)


def stored(kept: Kept) -> bool:
    return kept.change not in ("duplicate", "refused")


def test_no_restatement_is_stored_again(subject: Subject, agent: Actor, known: Sequence[Item]) -> None:
    echoes = [frame.format(known=text, told=told) for text, told in KNOWN for frame in FRAMES]
    pairs = [f"You told me that {one[1]} and {two[1]}." for one, two in pairwise(KNOWN)]
    before = (Item.objects.count(), ItemRevision.objects.count())
    again = [echo for echo in [*echoes, *pairs] if stored(items.remember(subject.id, NewItem(echo), actor=agent))]
    assert again == []
    assert len(echoes) + len(pairs) == 399
    assert (Item.objects.count(), ItemRevision.objects.count()) == before


def test_no_restatement_gets_through_however_it_is_introduced(subject: Subject, known: Sequence[Item]) -> None:
    key = keys.existing(subject.id)
    held = revising.active(subject, key)
    said = fence.Spoken(frozenset(), (), by_person=False)
    echoes = [frame.format(known=text, told=told) for text, told in KNOWN for frame in MORE_FRAMES]
    left = [echo for echo in echoes if fence.judge(subject, echo, held=held, source=Source(), said=said, key=key).text]
    assert left == []
    assert len(echoes) == 980


def test_what_is_new_is_not_refused(subject: Subject, agent: Actor, known: Sequence[Item]) -> None:
    prompts.write("desk", PROMPT, expected_version=0, reason="first", actor=agent)
    key = keys.existing(subject.id)
    held = revising.active(subject, key)
    said = fence.Spoken(frozenset(), (), by_person=False)
    refused = [
        new for new in NEW if fence.judge(subject, new, held=held, source=Source(), said=said, key=key).text != new
    ]
    assert len(NEW) == 100
    assert len(refused) <= REFUSED_SHARE_MAX * len(NEW), refused


def of_ada() -> list[restating.Clause]:
    return [
        clause
        for place, (text, _) in enumerate(KNOWN)
        for clause in restating.clauses(text, source=f"item_{place}", names=("ada",))
    ]


def told_again(framings: Sequence[str], *, statements: int) -> list[str]:
    """Each framing with some of the statements, others for the next one."""
    return [
        framing.format(known=known, told=told)
        for place, framing in enumerate(framings)
        for known, told in [KNOWN[(place + step * 7) % len(KNOWN)] for step in range(statements)]
    ]


def let_through(texts: Sequence[str]) -> list[str]:
    """Those of which a sentence would be stored."""
    known = of_ada()
    return [
        text
        for text in texts
        if any(
            not restating.restated(sentence, known, names=("ada",))
            and restating.says_something(sentence, names=("ada",))
            for sentence in sentences_of(text)
        )
    ]


@pytest.mark.parametrize(
    ("texts", "leaks_max"),
    [
        (told_again(restatements.FRAMINGS, statements=2), 0.01),
        (told_again(held_out.FRAMINGS, statements=4), 0.03),  # 1.5 % of all statements in them
        (restatements.RETOLD, 0.10),
        (held_out.RETOLD, 0.25),
        (held_out.OTHER_ROOTS, 0.93),
        (restatements.COMBINED, 0.16),
        (held_out.COMBINED, 0.0),
    ],
    ids=[
        "framings",
        "framings held out",
        "retold",
        "retold held out",
        "in other roots",
        "combined",
        "combined held out",
    ],
)
def test_how_much_gets_through_in_other_words(texts: Sequence[str], leaks_max: float) -> None:
    left = let_through(texts)
    assert len(left) <= leaks_max * len(texts), left


@pytest.mark.parametrize("news", [restatements.NEWS, held_out.NEWS], ids=["tuned", "held out"])
def test_news_in_the_words_of_what_is_known_gets_through(news: Sequence[str]) -> None:
    known = of_ada()
    refused = [
        text
        for text in news
        if any(restating.restated(sentence, known, names=("ada",)) for sentence in sentences_of(text))
    ]
    assert len(refused) <= REFUSED_SHARE_MAX * len(news), refused


def test_what_a_person_says_of_themselves_is_not_our_telling() -> None:
    known = of_ada()
    for mine in ("When I travel, I prefer window seats on night trains.", "I found a dog named Babbage."):
        assert not restating.restated(mine, known, names=("ada",), by_person=True)


def test_prompts_are_not_remembered(subject: Subject, agent: Actor) -> None:
    prompts.write("desk", PROMPT, expected_version=0, reason="first", actor=agent)
    prompts.write("desk", "Be kind to lamps.", expected_version=1, reason="second", actor=agent)
    for echo in [*PROMPT_ECHOES, PROMPT, "Be kind to lamps."]:
        kept = items.remember(subject.id, NewItem(echo), actor=agent)
        assert (kept.change, kept.item) == ("refused", None), echo
        assert "restates a prompt (prompt_" in kept.refused
    assert not Item.objects.exists()


def test_a_forgotten_item_that_was_injected_does_not_come_back_by_its_echo(
    subject: Subject, agent: Actor, alice: Actor, known: Sequence[Item]
) -> None:
    run_id = uuid4()
    item = known[8]
    given(item, run_id=run_id)
    editing.forget(item.id, reason="asked to", actor=alice)
    echo = "As you told me earlier, you have a dog named Babbage."
    kept = items.remember(subject.id, NewItem(echo), actor=agent, source=Source(run_id=run_id))
    assert (kept.change, kept.refused) == ("refused", f"it only restates an item (item_{item.id.hex}@1)")
    # The same words from the person are theirs to say.
    told = say(subject, agent, "I have a dog named Babbage.")
    kept = items.remember(subject.id, NewItem("Has a dog named Babbage."), actor=agent, source=_from(told, run_id))
    assert kept.change == "created"


def test_words_of_a_former_version_are_known_to_the_session_that_read_them(
    subject: Subject, agent: Actor, alice: Actor
) -> None:
    item = items.remember(subject.id, NewItem("Lives in the old town of Bern."), actor=alice).item
    assert item is not None
    session_id = session_of(subject, agent)
    given(item, session_id=session_id)
    editing.edit(item.id, expected_version=1, changes=ItemChanges(text="Lives in Basel."), reason="moved", actor=alice)
    heard = say(subject, agent, "You live in the old town of Bern.", role="assistant")
    kept = items.remember(subject.id, NewItem("Lives in the old town of Bern"), actor=agent, source=_from(heard))
    assert kept.change == "refused"


@pytest.mark.parametrize("origin", ["memory", "prompt"])
def test_messages_of_our_own_text_are_no_source(subject: Subject, agent: Actor, origin: str) -> None:
    ours = say(subject, agent, "Something quite new: Ada sails.", role="assistant", origin=origin)
    theirs = say(subject, agent, "Ada sails.")
    kept = items.remember(subject.id, NewItem("Ada sails"), actor=agent, source=Source(message_ids=(theirs, ours)))
    assert (kept.change, kept.item) == ("refused", None)
    assert f"message_{ours.hex}" in kept.refused
    assert items.remember(subject.id, NewItem("Ada sails"), actor=agent, source=_from(theirs)).change == "created"


def test_a_summary_of_another_session_is_no_news_but_that_of_this_one_is(subject: Subject, agent: Actor) -> None:
    """This session's summary holds what was just said in it: refusing by that would keep nothing."""
    here = session_of(subject, agent)
    other = sessions.open("other", subject_id=subject.id, agent="desk", actor=agent).id
    summarise(subject, here, "Ada collects old maps.")
    summarise(subject, other, "Ada sails on the lake.")
    heard = say(subject, agent, "So you collect old maps, and sail on the lake.", role="assistant")
    assert (
        items.remember(subject.id, NewItem("Collects old maps"), actor=agent, source=_from(heard)).change == "created"
    )
    kept = items.remember(subject.id, NewItem("Ada sails on the lake"), actor=agent, source=_from(heard))
    assert (kept.change, "restates a summary" in kept.refused) == ("refused", True)


def test_of_a_mixed_text_only_what_is_new_is_kept(subject: Subject, agent: Actor, known: Sequence[Item]) -> None:
    text = "As you told me, you have a dog named Babbage. Her cat is called Turing."
    kept = items.remember(subject.id, NewItem(text), actor=agent)
    assert kept.change == "created" and kept.item is not None
    assert revising.content_of(kept.item, keys.existing(subject.id)).text == "Her cat is called Turing."
    assert kept.refused == f"it only restates an item (item_{known[8].id.hex})"


def test_people_may_write_what_they_like(subject: Subject, alice: Actor, agent: Actor) -> None:
    prompts.write("desk", PROMPT, expected_version=0, reason="first", actor=agent)
    assert items.remember(subject.id, NewItem(PROMPT_ECHOES[0]), actor=alice).change == "created"


def test_what_is_said_again_lives_longer_but_its_echo_does_not(subject: Subject, agent: Actor, alice: Actor) -> None:
    item = items.remember(subject.id, NewItem("Has a dog"), actor=alice).item
    assert item is not None
    soon = now().replace(microsecond=0)
    Item.objects.update(expires_at=soon)
    items.remember(subject.id, NewItem("has a dog"), actor=agent)
    assert Item.objects.get().expires_at == soon
    told = say(subject, agent, "I have a dog")
    items.remember(subject.id, NewItem("has a dog"), actor=agent, source=_from(told))
    assert items.remember(subject.id, NewItem("Has a dog"), actor=alice).change == "duplicate"
    expires_at = Item.objects.get().expires_at
    assert expires_at is not None and expires_at > soon


def _from(message_id: UUID, run_id: UUID | None = None) -> Source:
    return Source(run_id=run_id, message_ids=(message_id,))


def summarise(subject: Subject, session_id: UUID, text: str) -> None:
    row = Summary(
        id=new_id(),
        subject_id=subject.id,
        session_id=session_id,
        level="session",
        tokens=5,
        method="extractive",
        created_at=now(),
    )
    row.text = sealing.seal_text(keys.existing(subject.id), "memory_summary", row.id, text)
    row.save(force_insert=True)
