"""Likeness: the same told with a little more is one statement; one word, number or "not" changed makes another."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from agentstate.core import restating
from agentstate.core.likeness import differs_in_guard, is_near, words
from agentstate.core.restating import clauses, restated

NAMES = ("Ada", "Bob", "Her brother", "The landlord", "Professor Noether", "Their dog")
ACTS = ("prefers", "avoids", "ordered", "returned", "asked for", "complained about")
THINGS = ("green tea", "the blue sofa", "a window seat", "express delivery", "paper invoices", "the 2 kg parcel")
WHEN = ("on Mondays", "in winter", "before noon", "every day", "since 2019", "in the office")
STATEMENTS = [f"{name} {act} {thing} {when}" for name in NAMES for act in ACTS for thing in THINGS for when in WHEN]


def near(one: str, other: str) -> bool:
    return is_near(words(one), words(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada likes tea", "ada likes TEA!"),
        ("Prefers contact by e-mail on workdays", "Really prefers the contact by email on workdays"),
        ("Ada's parcels go to the office door", "Adas parcel go to the office door, please"),
        ("他喜欢喝茶", "他喜欢喝茶。"),
        ("Wohnt in einer Wohnung am Bahnhof", "Wohnt in einer schönen Wohnung am Bahnhof"),
        ("Has 1,200 points on the account", "Has 1200 points on the account"),
    ],
)
def test_the_same_told_with_a_little_more_is_near(one: str, other: str) -> None:
    assert near(one, other)
    assert near(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bob owes Ada money for the tickets", "Ada owes Bob money for the tickets"),
        ("flight to London for the whole family", "flight from London for the whole family"),
        ("Order 1234 arrived late", "Order 1235 arrived late"),
        ("Paid 3.50 for the stamp", "Paid 3,50 for the stamp"),
        ("Call me on 2026-03-01 at the office", "Call me on 2026-03-02 at the office"),
        ("Ada eats meat at lunch with us", "Ada doesn't eat meat at lunch with us"),
        ("Ada can drive the small car home", "Ada can't drive the small car home"),
        ("He will be at the clinic on Friday", "He will be at the clinic on Thursday"),
        ("Writes to ada@x.test for all invoices", "Writes to eda@x.test for all invoices"),
        ("Sie isst mittags gerne Fleisch", "Sie isst mittags nie gerne Fleisch"),
        ("他喜欢喝茶", "他不喜欢喝茶"),
        ("Она любит зелёный чай дома", "Она не любит зелёный чай дома"),
        ("Ada likes the green tea of the office", "Ada rarely likes the green tea of the office"),
        ("Wants a refund for the broken lamp", "Wants a refund for the broken lamp unless it is replaced"),
        ("Has two cats in the flat upstairs", "Has three cats in the flat upstairs"),
    ],
)
def test_another_number_date_negation_or_order_is_never_near(one: str, other: str) -> None:
    assert not near(one, other)
    assert not near(other, one)


def test_no_two_of_many_statements_that_differ_in_a_word_are_near() -> None:
    """1,296 statements; each pair differs in one part at least."""
    chosen = random.Random(11).sample(STATEMENTS, 400)
    compared = [(one, other) for one, other in combinations(map(words, chosen), 2)]
    assert len(compared) == 79_800
    assert not [pair for pair in compared if is_near(*pair)]


def test_a_number_or_a_not_in_the_same_words_is_a_hint() -> None:
    assert differs_in_guard(words("Has 2 children at school"), words("Has 3 children at school"))
    assert differs_in_guard(words("Ada likes the tea"), words("Ada does not like the tea"))
    assert differs_in_guard(words("Is allergic to nuts"), words("Is not allergic to nuts"))
    assert not differs_in_guard(words("Has 2 children"), words("Has 2 children!"))
    assert not differs_in_guard(words("Has 2 cats at home"), words("Pays 3 euros for lunch"))


@pytest.mark.parametrize(
    ("sentence", "known", "is_restated"),
    [
        (
            "As you told me earlier, you prefer to be contacted by e-mail.",
            ["Ada prefers to be contacted by email."],
            True,
        ),
        ("You prefer e-mail and live in Berlin", ["Prefers e-mail for invoices", "Lives in Berlin"], True),
        ("I remember that you were allergic to peanuts", ["Ada is allergic to peanuts."], True),
        ("lives in Basel", ["Her sister lives in Basel"], False),
        ("Ada moved to Basel", ["Ada moved to Berlin", "Her sister lives in Basel"], False),
        ("You do not like tea", ["Ada likes tea"], False),
        ("You like tea", ["Ada does not like tea"], False),
        ("You like tea, and your new address is 5 Elm Street", ["Ada likes tea"], False),
        ("Ada used to live in Berlin", ["Ada lives in Berlin"], False),
        ("As I said before.", ["Ada likes tea"], False),
        ("", ["Ada likes tea"], False),
    ],
)
def test_only_what_says_nothing_of_its_own_is_restated(sentence: str, known: list[str], is_restated: bool) -> None:
    told = [clause for text in known for clause in clauses(text, source=text, names=("ada",))]
    assert bool(restated(sentence, told, names=("ada",))) is is_restated


@pytest.mark.parametrize("text", ["", "...", "a" * 100_000, "不" * 5_000, "1," * 20_000, "'" * 5_000, "-a" * 20_000])
def test_odd_texts_are_compared_without_harm(text: str) -> None:
    assert not is_near(words(text), words("Ada likes tea"))
    assert restating.restated(text, clauses(text[:2000], source="x")) in ("", "x")
