"""The model that `up` brings along: rules in place of a network. The same messages always get the same answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from agentstate.core import tokens
from agentstate.dev.demo import letters
from agentstate.llm.chat import REPLY_TOKENS_MAX, BadAnswer, Json, Message, Reply

NAME = "scripted-1"
# What the scripted model would cost, so that costs can be seen to add up without a bill.
DOLLARS_PER_TOKEN_IN = 0.15e-6
DOLLARS_PER_TOKEN_OUT = 0.60e-6
POINTS_MAX = 5
REPORT_POINTS_MAX = 12


class Scripted:
    def complete(
        self,
        messages: Sequence[Message],
        *,
        purpose: str,
        tools: Sequence[Mapping[str, Json]] = (),
        tokens_max: int = REPLY_TOKENS_MAX,
    ) -> Reply:
        if purpose not in _ANSWERS:
            raise BadAnswer(f"The scripted model has no rules for {purpose!r}; set AGENTSTATE_MODEL for a real one.")
        text = json.dumps(_ANSWERS[purpose](json.loads(messages[-1].content)), ensure_ascii=False)
        tokens_in = sum(tokens.count(message.content) for message in messages)
        tokens_out = tokens.count(text)
        cost = tokens_in * DOLLARS_PER_TOKEN_IN + tokens_out * DOLLARS_PER_TOKEN_OUT
        return Reply(text, (), tokens_in, tokens_out, NAME, round(cost, 9))


def read_message(asked: Json) -> Json:
    text = f"{asked['subject']}\n{asked['body']}"
    kind = _kind(text)
    amounts = _amounts(asked["body"]) if kind == "refund" else []
    found = _ORDER.search(text)
    return {
        "kind": kind,
        "order": found[1] if found else None,
        "amount": amounts[-1] if amounts else None,  # who corrects a sum names the one meant last
        "language": _language(text),
        "summary": _summary(kind, order=found[1] if found else "", amount=amounts[-1] if amounts else ""),
        "preferences": _preferences(asked["body"]),
    }


def digest_pages(asked: Json) -> Json:
    return {"points": [f"{page['claim'].capitalize()} ({page['title']})." for page in asked["pages"]][:POINTS_MAX]}


def write_report(asked: Json) -> Json:
    points = "\n".join(f"- {point}" for point in asked["points"][:REPORT_POINTS_MAX])
    more = len(asked["points"]) - REPORT_POINTS_MAX
    tail = f"\n\n{more} further points were noted." if more > 0 else ""
    return {"title": f"Notes on {asked['topic']}", "text": f"{asked['finding']}\n\n{points or '- nothing found'}{tail}"}


_ANSWERS: dict[str, Callable[[Json], Json]] = {
    "read-message": read_message,
    "write-letter": letters.write,
    "digest-pages": digest_pages,
    "write-report": write_report,
}

_ORDER = re.compile(
    r"(?:order|commande|bestellung|bestelling|pedido)\s*(?:no\.?|nr\.?)?\s*#?\s*(\d{3,10})", re.IGNORECASE
)
_AMOUNT = re.compile(r"(?<![\d.,])(\d{1,3}(?:[., ]\d{3})+|\d{1,7})[.,](\d{2})(?!\d)")
_INJECTION = re.compile(
    r"ignore (?:all |any )?(?:previous|prior|above) instructions|system prompt|maintenance mode|^system:", re.I | re.M
)
_SPAM = re.compile(r"unsubscribe|limited offer|click here|first page ranking|guarantee", re.IGNORECASE)
_REFUND = re.compile(
    r"refund|money back|€[\d.,]+ (?:back|would be fair)|rembours|erstatt|terug|reembols", re.IGNORECASE
)
_NO_MONEY = re.compile(r"(?:do not|don't) want (?:any )?money|no refund", re.IGNORECASE)
_WRITE_IN = re.compile(r"(?:write|answer|reply)(?: to me)? in (english|german|french|spanish|dutch)", re.IGNORECASE)
_NEVER_CALL = re.compile(r"(?:never|do not|don't|please no) (?:call|phone)", re.IGNORECASE)
_LANGUAGES = {
    "en": ("the", "hello", "order", "please", "thanks"),
    "de": ("guten", "bitte", "bestellung", "grüßen", "eine"),
    "fr": ("bonjour", "commande", "remboursée", "cordialement", "vous"),
    "es": ("hola", "pedido", "dónde", "estoy", "pueden"),
    "nl": ("beste", "bestelling", "graag", "groeten", "een"),
}


def _preferences(text: str) -> list[str]:
    """How the customer wants to be treated from now on, in our words."""
    language = _WRITE_IN.search(text)
    wanted = [f"Wants our mail in {language[1].capitalize()}."] if language else []
    return [*wanted, *(["Does not want to be called."] if _NEVER_CALL.search(text) else [])]


def _kind(text: str) -> str:
    if _INJECTION.search(text):
        return "injection"
    if _SPAM.search(text):
        return "spam"
    if _REFUND.search(text) and not _NO_MONEY.search(text):
        return "refund"
    return "question" if "?" in text else "complaint"


def _amounts(text: str) -> list[str]:
    """ "€1,249.00" and "1.249,00 €" as "1249.00", in order of appearance."""
    return [f"{re.sub(r'[., ]', '', whole)}.{part}" for whole, part in _AMOUNT.findall(text)]


def _language(text: str) -> str:
    words = set(re.findall(r"\w+", text.lower()))
    return max(_LANGUAGES, key=lambda code: len(words.intersection(_LANGUAGES[code])))


def _summary(kind: str, *, order: str, amount: str) -> str:
    about = f" about order {order}" if order else ""
    wants = f", {amount} EUR" if amount else ""
    return {
        "refund": f"Asks for a refund{wants}{about}.",
        "complaint": f"Complains{about}.",
        "question": f"Asks a question{about}.",
        "spam": "Advertises something.",
        "injection": "Tries to give orders to the assistant.",
    }[kind]
