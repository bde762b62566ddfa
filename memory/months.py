"""The names of months in seven languages, and the words that may stand before one. Tables only; recall.cues reads them.

A name that is another word too ("may", "mars", "sept") counts beside a preposition of its language, a day or a year.
"""

from __future__ import annotations

# In their order; several forms of one month with a slash.
LONG = {
    "en": "january february march april may june july august september october november december",
    "de": "januar/jänner februar/feber märz/maerz april mai juni juli august september oktober november dezember",
    "fr": "janvier février/fevrier mars avril mai juin juillet août/aout septembre octobre novembre décembre/decembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre/setiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "pt": "janeiro fevereiro março/marco abril maio junho julho agosto setembro outubro novembro dezembro",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
}
SHORT = {
    "en": "jan feb mar apr may jun jul aug sep/sept oct nov dec",
    "de": "jan feb mär/mrz apr mai jun jul aug sep/sept okt nov dez",
    "fr": "janv févr/fevr mars avr mai juin juil août sept oct nov déc",
    "es": "ene feb mar abr may jun jul ago sep/set oct nov dic",
    "it": "gen feb mar apr mag giu lug ago set ott nov dic",
    "pt": "jan fev mar abr mai jun jul ago set out nov dez",
    "nl": "jan feb mrt apr mei jun jul aug sep okt nov dec",
}
# What may stand before a month, one or more in a row: "im März", "au mois de mai", "a principios de mayo".
BEFORE = {
    "en": "in of on during since until till by before after around from through last this next early mid late every"
    " between the month",
    "de": "im in seit ab bis vor nach anfang mitte ende vom zum letzten letztem diesen diesem nächsten jeden monat des"
    " gegen zwischen",
    "fr": "en au mois de depuis dès fin début mi avant après vers jusqu'en dernier ce chaque d' du entre le",
    "es": "en de desde hasta del mes antes después tras finales principios mediados pasado este próximo cada entre el",
    "it": "in a di da dal fino ad nel mese prima dopo fine inizio metà scorso questo prossimo ogni tra fra",
    "pt": "em de desde até do mês antes depois após fim início meados passado este próximo cada entre no",
    "nl": "in van sinds tot voor na begin half eind vorige deze volgende elke maand rond tussen",
}
# Months that are other words as well, in one language or another; all that are short may be anything.
AMBIGUOUS = frozenset(
    ["march", "may", "mars", "mai", "mei", "marco", "abril", "avril", "junio", "julio", "august", "augustus"]
)


def numbers(table: dict[str, str]) -> dict[str, int]:
    """Name -> month from 1."""
    return {form: month for _, form, month in _forms(table)}


def languages() -> dict[str, frozenset[str]]:
    """Name of a month, or word before one -> the languages that have it."""
    found: dict[str, set[str]] = {}
    for table in (LONG, SHORT, BEFORE):
        for language, form, _ in _forms(table):
            found.setdefault(form, set()).add(language)
    return {form: frozenset(known) for form, known in found.items()}


def before() -> list[str]:
    """All words that may stand before, the longest first."""
    return sorted({form for _, form, _ in _forms(BEFORE)}, key=lambda word: (-len(word), word))


def _forms(table: dict[str, str]) -> list[tuple[str, str, int]]:
    return [
        (language, form, place)
        for language, names in table.items()
        for place, forms in enumerate(names.split(), start=1)
        for form in forms.split("/")
    ]
