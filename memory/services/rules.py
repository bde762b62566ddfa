"""What can be read off a message without a model: few patterns, each of which means what it says.

In English and the languages of phrases; addresses, numbers and dates in any. Questions, conditions, examples,
quotations and code are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentstate.core.extract import sentences_of
from memory.services.drafts import NewItem
from memory.services.phrases import CHANNEL, PHRASES, Phrases

SENTENCE_CHARS_MAX = 300  # a longer one is no plain statement

CHANNELS = {
    **dict.fromkeys(["email", "e-mail", "mail"], "email"),
    **dict.fromkeys(["phone", "telephone", "sms", "text", "text message"], "phone"),
    **dict.fromkeys(["post", "letter"], "post"),
    **dict.fromkeys(["chat", "whatsapp"], "chat"),
}
_CHANNEL = "(?P<channel>" + "|".join(sorted(CHANNELS, key=len, reverse=True)) + r")\b"
_DOING = (
    "send|pay|return|call|get back|reply|provide|upload|confirm|ship|sign|deliver|refund|replace|fix|check|follow up"
    "|issue|cancel|book|transfer|let you know"
)

NOT_SAID = re.compile(
    r"\?\s*$|^\s*(>|\"|“)|```|\b(if|suppose|imagine|for example|e\.g\.|would|could|might|maybe)\b", re.I
)
NEGATED = re.compile(r"\b(don't|do not|never|not|no longer|stop)\b", re.IGNORECASE)
CONTACT = re.compile(
    r"\b(?:contact|reach|call|e-?mail|text|write to|message|get (?:back )?to|reply to) me (?:only )?"
    rf"(?:by|via|through|over|on|per) (?:the )?{_CHANNEL}",
    re.IGNORECASE,
)
PREFERS_CHANNEL = re.compile(rf"\bI(?:'d| would)? (?:always )?prefer (?:to be contacted (?:by|via) )?{_CHANNEL}", re.I)
PREFERS = re.compile(r"\bI (?:always )?prefer (?P<what>[^.,;:!?\n]{3,80})", re.IGNORECASE)
ALLERGIC = re.compile(r"\bI(?:'m| am) allergic to (?P<what>[^.,;:!?\n]{3,60})", re.IGNORECASE)
NAMED = re.compile(r"\b[Mm]y name is (?P<name>[A-Z][\w'’-]+(?: [A-Z][\w'’-]+){0,3})")
NUMBER = r"(?P<number>[A-Z]{0,4}-?\d{4,12})(?!\w|[-/.]\d)"  # a date is no number
ORDER = re.compile(rf"\border\s*(?:number|no\.?|nr\.?|id)?\s*(?:is|:)?\s*#?\s*{NUMBER}", re.I)
PROMISED = re.compile(rf"\b(?:I|we)(?:'ll| will| promise to) (?P<what>(?:{_DOING})\b[^.!?\n]{{3,140}})", re.IGNORECASE)
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+(?![\w@])")
PHONE = re.compile(r"(?<![\w+])\+\d(?:[ ()/.-]{0,2}\d){7,14}(?!\d)")
DATE = re.compile(r"(?<!\d)20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)")


_CAPITAL = r"(?-i:[^\W\d_a-zß-öø-ÿ])[\w'’-]+"
NAME = rf"(?P<what>{_CAPITAL}(?: (?:(?:de|van|der|den|von|zu|di|da|do|dos|del|la|le) ){{0,2}}{_CAPITAL}){{0,3}})"


@dataclass(frozen=True, slots=True)
class Found:
    """One statement that a sentence makes. `because`: the rule, for the review list."""

    new: NewItem
    confidence: float
    because: str


def read(text: str, *, role: str) -> list[Found]:
    """What a message says about the subject; an assistant's message only what it promises."""
    found: dict[tuple[str, str], Found] = {}
    for sentence in sentences_of(_outside_code(text)):
        if len(sentence) > SENTENCE_CHARS_MAX:
            continue
        for each in _of(sentence, role=role):
            found.setdefault((each.new.namespace, each.new.text), each)
    return list(found.values())


def _of(sentence: str, *, role: str) -> Iterator[Found]:
    if role == "user":
        for rule in _LITERAL:
            yield from rule(sentence)
    if NOT_SAID.search(sentence):
        return
    if role == "user":
        for rule in _STATED:
            yield from rule(sentence)
    yield from _promise(sentence, by="them" if role == "user" else "us")


def _outside_code(text: str) -> str:
    """Without fenced code and quoted lines: nobody says them."""
    plain = re.sub(r"```.*?(```|\Z)", "\n", text, flags=re.DOTALL)
    return "\n".join(line for line in plain.splitlines() if not line.lstrip().startswith((">", "|")))


def _emails(sentence: str) -> Iterator[Found]:
    for address in EMAIL.findall(sentence):
        doc = {"channel": "email", "address": address.rstrip(".")}
        yield _contact(f"E-mail address: {doc['address']}", doc, "", 0.75, "an e-mail address")


def _phones(sentence: str) -> Iterator[Found]:
    for number in PHONE.findall(sentence):
        plain = re.sub(r"[^\d+]", "", number)
        yield _contact(f"Phone number: {plain}", {"channel": "phone", "address": plain}, "", 0.75, "a phone number")


def _orders(sentence: str) -> Iterator[Found]:
    kept: dict[str, str] = {}
    for pattern, how in [
        (ORDER, "Has the order {}."),
        *((each.order, each.phrases.kept_order) for each in _TRANSLATED),
    ]:
        for match in pattern.finditer(sentence):
            kept.setdefault(match["number"].upper(), how)
    for number, how in kept.items():
        new = NewItem(how.format(number), namespace="orders", fact_kind="order", facts={"number": number})
        yield Found(new, 0.8, "an order number")


def _contacts(sentence: str) -> Iterator[Found]:
    match = CONTACT.search(sentence) or PREFERS_CHANNEL.search(sentence)
    if not match:
        return
    channel = CHANNELS[match["channel"].lower()]
    if NEGATED.search(sentence[: match.end()]):
        yield _contact(f"Does not want to be contacted by {channel}.", None, "", 0.75, "how not to be contacted")
    else:
        doc = {"channel": channel, "preferred": True}
        yield _contact(f"Prefers to be contacted by {channel}.", doc, "preferred channel", 0.85, "how to be contacted")


def _names(sentence: str) -> Iterator[Found]:
    if match := NAMED.search(sentence):
        yield Found(NewItem(f"Is called {match['name']}.", namespace="profile", attribute="name"), 0.85, "a name")


def _preferences(sentence: str) -> Iterator[Found]:
    match = PREFERS.search(sentence)
    if match and not PREFERS_CHANNEL.search(sentence) and not NEGATED.search(sentence):
        yield Found(NewItem(f"Prefers {match['what'].strip()}.", namespace="preferences"), 0.7, "a preference")


def _allergies(sentence: str) -> Iterator[Found]:
    match = ALLERGIC.search(sentence)
    if match and not NEGATED.search(sentence):
        new = NewItem(f"Is allergic to {match['what'].strip()}.", namespace="health", importance=0.9)
        yield Found(new, 0.85, "an allergy")


def _in_other_languages(sentence: str) -> Iterator[Found]:
    for each in _TRANSLATED:
        if each.doubted.search(sentence):
            continue
        contact = _contact_in(each, sentence)
        if contact:
            yield contact
        if each.negated.search(sentence):
            continue
        for pattern, kept, fields, confidence, because in each.said:
            match = pattern.search(sentence)
            if match and not (contact and because == "a preference"):
                yield Found(NewItem(kept.format(match["what"].strip()), **fields), confidence, because)


def _contact_in(language: _Translated, sentence: str) -> Found | None:
    match = language.contact.search(sentence)
    if not match:
        return None
    word = next(value for name, value in match.groupdict().items() if name.startswith("channel") and value)
    channel = language.phrases.channels[word.lower()]
    called = language.phrases.called[channel]
    if language.negated.search(sentence):
        text = language.phrases.kept_no_contact.format(called)
        return _contact(text, None, "", 0.75, "how not to be contacted")
    doc = {"channel": channel, "preferred": True}
    text = language.phrases.kept_contact.format(called)
    return _contact(text, doc, "preferred channel", 0.85, "how to be contacted")


def _dates(sentence: str) -> Iterator[Found]:
    if DATE.search(sentence) and len(sentence) <= 200 and not PROMISED.search(sentence) and not _promised_in(sentence):
        yield Found(NewItem(sentence, kind="episodic", namespace="dates"), 0.5, "a sentence with a date")


def _promise(sentence: str, *, by: str) -> Iterator[Found]:
    match = PROMISED.search(sentence)
    if match and not NEGATED.search(sentence):
        yield _promised(match["what"].strip(), ("We" if by == "us" else "They") + " will {}.", by=by)
    elif not match and (found := _promised_in(sentence)):
        language, what = found
        yield _promised(what, language.phrases.kept_ours if by == "us" else language.phrases.kept_theirs, by=by)


def _promised_in(sentence: str) -> tuple[_Translated, str] | None:
    """In which language, and what. Of two that share the verb the one of which more words stand there."""
    found = [(each, match) for each in _TRANSLATED if (match := each.promise.search(sentence))]
    found = [(each, match) for each, match in found if not each.doubted.search(sentence)]
    if not found or any(each.negated.search(sentence) for each, _ in found):
        return None
    language, match = max(found, key=lambda pair: len(pair[0].own.findall(sentence)))
    return language, match[0].strip(" ,;")


def _promised(what: str, kept: str, *, by: str) -> Found:
    dates = DATE.findall(what)
    doc: dict[str, Any] = {"what": what, "by": by, **({"due_on": dates[0]} if len(dates) == 1 else {})}
    new = NewItem(kept.format(what), namespace="commitments", fact_kind="commitment", facts=doc, importance=0.8)
    return Found(new, 0.7 if dates else 0.6, "a promise")


def _contact(text: str, doc: dict[str, Any] | None, attribute: str, confidence: float, because: str) -> Found:
    kind = "contact" if doc is not None else ""
    new = NewItem(text, namespace="contact", attribute=attribute, fact_kind=kind, facts=doc, importance=0.7)
    return Found(new, confidence, because)


Said = tuple[re.Pattern[str], str, dict[str, Any], float, str]


def _said(phrases: Phrases) -> list[Said]:
    """Patterns of one language, each with how it is kept."""
    what = r"(?P<what>[^.,;:!?\n]{3,80})"
    health: dict[str, Any] = {"namespace": "health", "importance": 0.9}
    profile: dict[str, Any] = {"namespace": "profile", "attribute": "name"}
    return [
        (_opening(phrases.name, NAME), phrases.kept_name, profile, 0.85, "a name"),
        (_opening(phrases.prefers, what), phrases.kept_prefers, {"namespace": "preferences"}, 0.7, "a preference"),
        (_opening(phrases.allergic, what), phrases.kept_allergic, health, 0.85, "an allergy"),
    ]


def _opening(phrase: str, what: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{phrase})(?:\s+|(?<=['’])){what}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Translated:
    """The patterns of one language beside English."""

    phrases: Phrases
    said: list[Said]
    contact: re.Pattern[str]
    order: re.Pattern[str]
    promise: re.Pattern[str]
    negated: re.Pattern[str]
    doubted: re.Pattern[str]
    own: re.Pattern[str]


def _translated(phrases: Phrases) -> _Translated:
    return _Translated(
        phrases,
        _said(phrases),
        _whole(
            _with_channels(rf"{phrases.contact}|(?:{phrases.prefers_channel})(?=\s*(?:[.,;:!]|$))", phrases.channels)
        ),
        re.compile(rf"(?<!\w)(?:{phrases.order})\s*:?\s*#?\s*{NUMBER}", re.IGNORECASE),
        re.compile(rf"(?<!\w)(?:{phrases.promise})", re.IGNORECASE),
        _whole(phrases.negated),
        _whole(phrases.doubted),
        _whole(phrases.own),
    )


def _whole(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


def _with_channels(pattern: str, channels: Mapping[str, str]) -> str:
    """Each place of a channel as a group of its own: a name stands once in a pattern."""
    words = "|".join(map(re.escape, sorted(channels, key=len, reverse=True)))
    parts = pattern.split(CHANNEL)
    return parts[0] + "".join(rf"(?P<channel{n}>{words})(?![\w-]){part}" for n, part in enumerate(parts[1:]))


_TRANSLATED = [_translated(phrases) for phrases in PHRASES.values()]
Rule = Callable[[str], Iterator[Found]]
_LITERAL: tuple[Rule, ...] = (_emails, _phones, _orders)  # also in a question: the number is theirs
_STATED: tuple[Rule, ...] = (_contacts, _names, _preferences, _allergies, _in_other_languages, _dates)
