"""Whether a question refers to something said before: then, and only then, recall by reference is asked.

Signs that need no language come first: ids, dates, amounts, quotes, names of people who spoke. Words like "last time"
are a short list in a few languages; what it misses costs a recall that is not asked, never a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from memory.recall import cues

NUMBERED = re.compile(r"\d{2,}|\d[.,:/-]\d|#\d|[A-Za-z]+[-_]?\d|\d+\s?[%€$£¥]")
QUOTED = re.compile(r"[\"“„«»「『‘][^\"”“»」』’]{3,}[\"”“»」』’]")
BACK = re.compile(
    r"\b(last (time|week|month|year|night)|previous(ly)?|earlier|before|again|already|yesterday|remember|remind|recall"
    r"|you (said|told|mentioned|promised)|(i|we) (said|told|mentioned|agreed|decided|discussed|talked)"
    r"|as (usual|before)|still"
    r"|letzte[nrms]?|vorhin|vorher|damals|gestern|nochmal|wieder|erinner\w*|bereits|schon|versprochen|besprochen"
    r"|dernière fois|hier|déjà|encore|rappel\w*|souvien\w*|convenu|última vez|ayer|antes|otra vez|recuerd\w*|acord\w*"
    r"|scorsa volta|ieri|ancora|ricord\w*|прошл\w*|вчера|опять|снова|помни\w*|раньше)\b"
    r"|上次|之前|昨天|还记得|記得|前回|昨日|以前|覚えて|지난번|어제|기억",
    re.IGNORECASE,
)


def refers_back(question: str, *, authors: Callable[[], Mapping[int, str]]) -> bool:
    """`authors`: names by number; asked for only when nothing else tells."""
    if NUMBERED.search(question) or QUOTED.search(question) or cues.named_months(question) or BACK.search(question):
        return True
    return cues.named_author(question, authors()) is not None
