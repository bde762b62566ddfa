"""Words that statements are compared without, and words that no two equal statements may differ in."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say nothing by themselves.
FILLERS = _words("""
    a an the is are am be also just really very please that this of der die das ein eine ist and or und oder
""")

# What turns a statement round.
NEGATIONS = _words("""
    not no never none nobody nothing neither nor without cannot nicht kein keine keinen nie ohne nein ne pas
    jamais sans nunca jamás sin não nem sem non mai senza не нет никогда без 不 没 沒 無 无 非 ない 안 못
""")

# What binds a statement to a condition, a time or a doubt.
QUALIFIERS = _words("""
    only except but unless if until till since before after instead former formerly previously used anymore
    longer maybe perhaps might may could almost nearly rarely seldom hardly barely sometimes usually often
    mostly always stopped stop quit cancelled canceled ex false wrong incorrect was were had from against nur
    außer falls bis seit früher vielleicht selten manchmal sauf seulement peut-être solo excepto quizás только
    кроме если
""")

# Numbers and dates that are written as words.
NUMERALS = _words("""
    zero one two three four five six seven eight nine ten eleven twelve dozen hundred thousand million first
    second third fourth fifth half twice once both monday tuesday wednesday thursday friday saturday sunday
    january february march april june july august september october november december today tomorrow yesterday
    tonight morning afternoon evening night noon midnight weekend weekends weekday weekdays daily weekly monthly
    yearly spring summer autumn winter zwei drei vier fünf montag dienstag mittwoch donnerstag freitag samstag
    sonntag deux trois quatre lundi mardi mercredi jeudi vendredi samedi dimanche dos tres cuatro lunes martes
    miércoles jueves viernes sábado domingo
""")

# How a memory is told again: words of telling, of remembering, and for whom it is about.
FRAMING = _words("""
    i me my mine we us our you your yours he him his she her hers they them their theirs it its user customer client
    person caller as per according note notes noted noting record records recorded memory memories remember
    remembered recall recalled recalling know known knowing knew tell told telling say said saying says mention
    mentioned mentioning state stated states share shared inform informed earlier already conversation
    conversations chat session so what which who here there right correct ok okay yes well indeed understand
    understood confirm confirmed confirming see seen aware based information info context profile summary reminder
    would also do does did has have been being will shall let to hi hello thanks thank sure of course i've you've
    i'm you're that's it's reading shows show above below following recap recalls reminds remind reference still
    assistant agent back appears apparently seems summarise summarize overall clearly obviously therefore hence thus
    regarding concerning think believe guess gather then
""")

# After one of these a past tense says nothing about the past.
REPORTED = _words("""
    told tell said say says mentioned mention stated noted remember recall recorded
""")

# Dropped where a restatement is looked for: by e-mail, via e-mail.
PREPOSITIONS = _words("""
    by via in on at for with to about into through over
""")

# Whose news a statement may be instead: "Sister: lives in Bern".
OTHERS = _words("""
    mother father mom mum dad parent sister brother wife husband spouse partner son daughter child kid baby aunt
    uncle cousin niece nephew grandmother grandfather grandson granddaughter family friend colleague boss
    manager employer employee neighbour neighbor landlord tenant doctor lawyer teacher assistant's roommate ex
    dog cat company firm team
""")

# In an introduction these qualify the asking, not what is said: "could you confirm that".
HEDGES = _words("could may might was were had usually often always from one")

# Two words with one of these behind the same root are forms of one: allergy, allergic; translate, translator.
ENDINGS = _words("""
    e y i s c ic or er ion ation enc anc ence ance ment al ly ing ed ity ness ant ent ist
""") | {""}
