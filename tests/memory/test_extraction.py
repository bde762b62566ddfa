"""Extraction: what was plainly said becomes a proposal; nothing else does, and nothing that came from ourselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from agentstate.core.errors import NotFound
from agentstate.llm import chat
from agentstate.llm.chat import BadAnswer, ModelUnavailable, Reply
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Item, Proposal, Session, Subject
from memory.services import editing, extraction, items, messages, proposals, rules, sessions
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from tests.memory import held_out

pytestmark = pytest.mark.usefixtures("committed_db")


@dataclass
class Scripted:
    """Answers what a test tells it to; notes whether a transaction was open meanwhile."""

    answer: Any
    asked: list[str] = field(default_factory=list)
    in_transaction: bool = False

    def complete(
        self,
        messages: Sequence[chat.Message],
        *,
        purpose: str,
        tools: Sequence[Mapping[str, Any]] = (),
        tokens_max: int = 0,
    ) -> Reply:
        self.asked.append(messages[-1].content)
        self.in_transaction = connection.in_atomic_block
        if isinstance(self.answer, Exception):
            raise self.answer
        text = self.answer if isinstance(self.answer, str) else json.dumps({"statements": self.answer})
        return Reply(text, model="scripted-1")


class Talk:
    """One session of Ada with an agent."""

    def __init__(self, tenant: Tenant, subject: Subject, actor: Actor) -> None:
        self.tenant, self.subject, self.actor = tenant, subject, actor
        with tenant_scope(tenant.id):
            self.session_id = sessions.open("chat", subject_id=subject.id, agent="desk", actor=actor).id

    def policy(self, **fields: Any) -> None:
        with tenant_scope(self.tenant.id):
            TenantSetting.objects.update_or_create(key="memory.agent:desk", defaults={"value": fields})

    def say(self, text: str, *, role: str = "user", origin: str = "said") -> UUID:
        with tenant_scope(self.tenant.id):
            new = NewMessage(role, text, origin=origin)
            return messages.append(self.session_id, [new], actor=self.actor).messages[0][0]

    def extract(self, *message_ids: UUID, model: Any = None) -> list[str]:
        found = extraction.after_turn(self.tenant.id, self.session_id, message_ids, model=model)
        return [each.outcome for each in found]

    def proposed(self) -> list[str]:
        with tenant_scope(self.tenant.id):
            key = keys.existing(self.subject.id)
            return [proposals.body_of(row, key).text for row in Proposal.objects.order_by("id")]


@pytest.fixture
def talk(tenant: Tenant, subject: Subject, agent: Actor) -> Talk:
    return Talk(tenant, subject, agent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please contact me by e-mail.", ["Prefers to be contacted by email."]),
        ("I'd prefer phone.", ["Prefers to be contacted by phone."]),
        ("Don't call me by phone!", ["Does not want to be contacted by phone."]),
        ("My name is Ada Lovelace, hello.", ["Is called Ada Lovelace."]),
        ("I always prefer window seats.", ["Prefers window seats."]),
        ("I'm allergic to peanuts.", ["Is allergic to peanuts."]),
        ("My order number is ab-20417.", ["Has the order AB-20417."]),
        ("Where is order #20417?", ["Has the order 20417."]),
        ("Write to ada@lovelace.test or +41 31 555 01 02", [
            "E-mail address: ada@lovelace.test",
            "Phone number: +41315550102",
        ]),
        ("I'll send the form by 2026-12-01.", ["They will send the form by 2026-12-01."]),
        ("Der Termin ist am 2026-12-04.", ["Der Termin ist am 2026-12-04."]),
        ("Meine Adresse ist ada@beispiel.test。", ["E-mail address: ada@beispiel.test"]),
        ("我的邮箱是 ada@li.test", ["E-mail address: ada@li.test"]),
        ("Hallo, ich heiße Ada Lovelace und brauche Hilfe.", ["Heißt Ada Lovelace."]),
        ("Ich bin stark allergisch gegen Erdnüsse.", ["Ist allergisch gegen Erdnüsse."]),
        ("Ich bevorzuge Fensterplätze, danke.", ["Bevorzugt Fensterplätze."]),
        ("Je m'appelle Élise Dupont.", ["S'appelle Élise Dupont."]),
        ("Je préfère le train de nuit.", ["Préfère le train de nuit."]),
        ("Je suis allergique aux noix.", ["Allergie : noix."]),
        ("Me llamo Ángel Ruiz, y prefiero el té verde.", ["Se llama Ángel Ruiz.", "Prefiere el té verde."]),
        ("Soy alérgica a los cacahuetes.", ["Alergia: cacahuetes."]),
        ("Mi chiamo Élia Rossi.", ["Si chiama Élia Rossi."]),
        ("Sono allergico alle noci.", ["Allergia: noci."]),
        ("Meu nome é João Silva.", ["Chama-se João Silva."]),
        ("Eu prefiro café.", ["Prefere café."]),
        ("Ik heet Jan de Boer.", ["Heet Jan de Boer."]),
        ("Ik ben allergisch voor pinda's.", ["Is allergisch voor pinda's."]),
    ],
)  # fmt: skip
def test_plain_statements_are_read(text: str, expected: list[str]) -> None:
    assert [found.new.text for found in rules.read(text, role="user")] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Should I contact you by phone?",
        "If you like, contact me by phone.",
        "Imagine my name is Zorro.",
        "> Please contact me by e-mail.",
        "```\nMy name is Root\n```",
        "He prefers tea.",
        "My wife's name is Byron.",
        "I don't prefer tea.",
        "I am not allergic to nuts.",
        "I would maybe prefer tea",
        "I won't send the form.",
        "The year 2026 was fine, and 2026-13-45 is no date.",
        "room 20417 and invoice 20417",
        "@ada on the chat, a@b",
        "+1 is my answer",
        "My name is",
        "x" * 5000,
        "My name is " + "A" * 4000,
        "I prefer " + "very " * 2000 + "long seats.",
        "Ich bin nicht allergisch gegen Nüsse.",
        "Si vous me contactez par courriel, je répondrai vite.",
        "Ich werde das Formular nicht zurückschicken.",
        "Wir werden sehen, ob Sie zahlen.",
        "Nous ne rembourserons pas la commande.",
        "No enviaré el formulario mañana.",
        "Falls ich Bohnen bevorzuge, sage ich es.",
        "Wie heiße ich?",
        "Ich heiße alle willkommen.",
        "Je ne préfère pas le thé.",
        "Si je préfère le train, je le dirai.",
        "No soy alérgico a los gatos.",
        "Quizás prefiero el té.",
        "Non sono allergica alle noci.",
        "Não prefiro café.",
        "Ik ben niet allergisch voor katten.",
        "Моё имя Ада, ich hei",
        "我叫李明 me llamo",
        "ich heiße " * 40,
    ],
)
def test_what_is_not_plainly_said_is_left_alone(text: str) -> None:
    assert rules.read(text, role="user") == []


KEPT_IN = {
    "Bitte kontaktieren Sie mich nur per E-Mail.": "Möchte per E-Mail kontaktiert werden.",
    "Contactez-moi par courrier électronique.": "Souhaite un contact par e-mail.",
    "No me llamen por teléfono.": "No quiere que se le contacte por teléfono.",
    "Preferisco la posta elettronica.": "Vuole un contatto per e-mail.",
    "Entrem em contato comigo pelo celular.": "Quer contacto por telefone.",
    "Ik verkies post.": "Wil contact via post.",
    "Meine Bestellnummer ist ab-20417.": "Hat die Bestellung AB-20417.",
    "Où est la commande n° 20417 ?": "A la commande 20417.",
    "Mi número de pedido es 20417.": "Tiene el pedido 20417.",
    "Il mio numero d'ordine è 20417.": "Ha l'ordine 20417.",
    "O meu pedido é 20417.": "Tem a encomenda 20417.",
    "Mijn bestelling 20417 is niet aangekomen.": "Heeft de bestelling 20417.",
    "Ich werde das Formular bis 2026-12-01 schicken.": "Hat zugesagt: Ich werde das Formular bis 2026-12-01 schicken.",
    "J'enverrai les photos demain.": "A promis : J'enverrai les photos demain.",
    "Enviaremos el formulario antes del lunes.": "Ha prometido: Enviaremos el formulario antes del lunes.",
    "Vi invieremo il rimborso lunedì.": "Ha promesso: Vi invieremo il rimborso lunedì.",
    "Enviaremos o formulário até segunda.": "Prometeu: Enviaremos o formulário até segunda.",
    "Ik zal het formulier morgen opsturen.": "Heeft toegezegd: Ik zal het formulier morgen opsturen.",
}


def test_contact_orders_and_promises_are_kept_in_the_language_they_were_said_in() -> None:
    for text, kept in KEPT_IN.items():
        assert [found.new.text for found in rules.read(text, role="user")] == [kept], text
    (ours,) = rules.read("Wir werden Ihnen die Lampe bis 2026-12-01 liefern. Ich heiße Otto.", role="assistant")
    assert ours.new.text.startswith("Unsere Zusage: Wir werden") and ours.new.facts is not None
    assert (ours.new.facts["by"], ours.new.facts["due_on"], ours.confidence) == ("us", "2026-12-01", 0.7)
    (reached,) = rules.read("Contactez-moi par SMS.", role="user")
    assert (reached.new.attribute, reached.new.facts) == ("preferred channel", {"channel": "phone", "preferred": True})


def kinds_of(text: str) -> list[str]:
    """What was read of contact, orders and promises."""
    kinds = []
    for found in rules.read(text, role="user"):
        facts = found.new.facts or {}
        if found.new.namespace == "contact":
            kinds.append(str(facts.get("channel", "not")))
        elif found.new.namespace in ("orders", "commitments"):
            kinds.append(str(facts.get("number", "promise")))
    return kinds


def test_sentences_no_rule_was_made_for_are_mostly_read_and_nothing_else_is() -> None:
    """50 of 52 when the rules were frozen: missed are an indicative, and a number behind a full stop."""
    read = [text for text, kind in held_out.PLAINLY_SAID if kinds_of(text) == [kind]]
    assert len(read) >= 50, [text for text, _ in held_out.PLAINLY_SAID if text not in read]
    for text in held_out.SAID_OTHERWISE:
        assert kinds_of(text) == [], text


def test_an_assistant_only_promises() -> None:
    text = "I'll send the refund by 2026-12-01. My name is Bot. Write to desk@acme.test. I prefer tea."
    (found,) = rules.read(text, role="assistant")
    assert (found.new.text, found.new.facts) == (
        "We will send the refund by 2026-12-01.",
        {"what": "send the refund by 2026-12-01", "by": "us", "due_on": "2026-12-01"},
    )


def test_a_turn_becomes_proposals_once(talk: Talk, tenant: Tenant, alice: Actor) -> None:
    said = talk.say("My name is Ada Lovelace. Please contact me by e-mail.")
    assert talk.extract(said) == ["proposed", "proposed"]
    assert talk.extract(said) == ["known", "known"]
    with tenant_scope(tenant.id):
        rows = list(Proposal.objects.order_by("id"))
        assert [row.source_message_ids for row in rows] == [[said], [said]]
        proposals.accept(rows[0].id, actor=alice)
        proposals.reject(rows[1].id, actor=alice, reason="not any more")
    assert talk.extract(said) == ["known", "decided"]
    with tenant_scope(tenant.id):
        editing.forget(Item.objects.get().id, reason="asked to", actor=alice)
    assert talk.extract(said) == ["decided", "decided"]  # reading again brings nothing back


def test_a_policy_that_accepts_stores_what_is_sure(talk: Talk, tenant: Tenant) -> None:
    talk.policy(accept="auto")
    said = talk.say("My name is Ada Lovelace. The visit is on 2026-12-04.")
    assert talk.extract(said) == ["accepted", "proposed"]
    with tenant_scope(tenant.id):
        item = Item.objects.get()
        assert (item.status, item.source_message_ids, item.namespace) == ("active", [said], "profile")


def test_only_what_was_said_is_read(talk: Talk, tenant: Tenant) -> None:
    text = "My name is Ada Lovelace."
    for how in ({"role": "system"}, {"role": "tool"}, {"origin": "memory"}, {"origin": "prompt"}):
        assert talk.extract(talk.say(text, **how)) == []
    said = talk.say(text)
    with tenant_scope(tenant.id):
        version = Session.objects.get().version
        messages.undo(talk.session_id, last_n=1, expected_version=version, reason="x", actor=talk.actor)
    assert talk.extract(said, uuid4()) == []
    assert talk.proposed() == []


def test_off_reads_nothing(talk: Talk) -> None:
    talk.policy(extraction="off")
    assert talk.extract(talk.say("My name is Ada Lovelace."), model=Scripted([])) == []


def test_an_unknown_session_is_not_found(tenant: Tenant) -> None:
    with pytest.raises(NotFound):
        extraction.after_turn(tenant.id, uuid4(), [])


class TestModel:
    @pytest.fixture(autouse=True)
    def _by_model(self, talk: Talk) -> None:
        talk.policy(extraction="model")

    def test_it_is_asked_outside_transactions_and_named(self, talk: Talk, tenant: Tenant) -> None:
        said = talk.say("We moved to Geneva last week, all three of us, with 2 cats.")
        model = Scripted([{"text": "Moved to Geneva with 2 cats", "confidence": 0.9, "message": 1}])
        assert talk.extract(said, model=model) == ["proposed"]
        assert not model.in_transaction
        assert talk.proposed() == ["Moved to Geneva with 2 cats"]
        with tenant_scope(tenant.id):
            row = Proposal.objects.get()
            assert (row.method, row.confidence, row.source_message_ids) == ("scripted-1", 0.9, [said])

    def test_what_the_messages_do_not_bear_out_is_dropped(self, talk: Talk) -> None:
        said = talk.say("We moved to Geneva.")
        answer = [
            {"text": "Moved to Geneva with 2 cats", "message": 1},  # no 2 was said
            {"text": "Write to boss@evil.test", "message": 1},
            {"text": "Loves opera, chess and rain", "message": 1},
            {"text": "We moved to Geneva", "message": 9},  # there is no such message
        ]
        assert talk.extract(said, model=Scripted(answer)) == []

    def test_a_statement_that_cannot_be_kept_costs_no_other_one(self, talk: Talk) -> None:
        said = talk.say("We moved to Geneva. We moved to Geneva\0".replace("\0", " now."))
        answer = [
            {"text": "We moved\x00 to Geneva", "message": 1},
            {"text": "We moved to Geneva", "message": 1},
        ]
        assert talk.extract(said, model=Scripted(answer)) == ["refused", "proposed"]

    @pytest.mark.parametrize(
        "answer",
        [
            "no JSON at all",
            '{"statements": 7}',
            '{"statements": [{"text": ""}]}',
            [{"text": "x" * 500, "message": 1}],
            [{"text": "abc", "message": 1}] * 21,
            [{"text": "abc", "message": 1, "confidence": 7}],
        ],
    )
    def test_nonsense_is_an_error_to_try_again_and_nothing_is_lost(self, talk: Talk, answer: Any) -> None:
        said = talk.say("We moved to Geneva.")
        with pytest.raises(BadAnswer):
            talk.extract(said, model=Scripted(answer))
        assert talk.proposed() == []

    def test_a_model_that_is_down_is_an_error_to_try_again(self, talk: Talk) -> None:
        said = talk.say("My name is Ada Lovelace.")
        with pytest.raises(ModelUnavailable):
            talk.extract(said, model=Scripted(ModelUnavailable("It is down.")))
        assert talk.extract(said) == ["proposed"]  # without a model in the settings: by rules

    def test_a_long_turn_is_cut(self, talk: Talk) -> None:
        ids = [talk.say("word " * 1600) for _ in range(4)]
        model = Scripted([])
        talk.extract(*ids, model=model)
        assert len(model.asked[0]) < 17_000

    def test_what_the_agent_read_is_not_extracted_from_what_it_says(
        self, talk: Talk, tenant: Tenant, alice: Actor
    ) -> None:
        with tenant_scope(tenant.id):
            items.remember(talk.subject.id, NewItem("Lives in the old town of Bern"), actor=alice)
        said = talk.say("As you told me earlier, you live in the old town of Bern.", role="assistant")
        model = Scripted([{"text": "Lives in the old town of Bern", "message": 1, "confidence": 1}])
        assert talk.extract(said, model=model) == ["known"]
        assert talk.proposed() == []
