"""How a person says a name, a preference or an allergy in languages other than English, and how it is kept in them.

One row per language; rules reads them. `doubted` are words that make it a condition, a wish or a denial: then nothing
is read. A statement is kept in the language in which it was said.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """Patterns without case, but for the name that follows `name`; `kept_*` say where it goes."""

    name: str
    prefers: str
    allergic: str
    doubted: str
    kept_name: str
    kept_prefers: str
    kept_allergic: str


PHRASES = {
    "de": Phrases(
        name=r"ich hei(?:ß|ss)e|mein name ist",
        prefers=r"ich bevorzuge(?: immer)?",
        allergic=r"ich bin (?:\w+ )?allergisch (?:gegen|auf)",
        doubted=r"nicht|nie|nimmer|kein\w*|wenn|falls|vielleicht|würde|könnte|möglicherweise|angenommen|zum beispiel",
        kept_name="Heißt {}.",
        kept_prefers="Bevorzugt {}.",
        kept_allergic="Ist allergisch gegen {}.",
    ),
    "fr": Phrases(
        name=r"je m['’]appelle|mon nom est",
        prefers=r"je préfère(?: toujours)?",
        allergic=r"je suis allergique (?:aux|au|à la|à l['’]|à)",
        doubted=r"ne|n['’]\w+|pas|jamais|plus|si|peut-être|pourrais|aimerais|imaginons|supposons|par exemple",
        kept_name="S'appelle {}.",
        kept_prefers="Préfère {}.",
        kept_allergic="Allergie : {}.",
    ),
    "es": Phrases(
        name=r"me llamo|mi nombre es",
        prefers=r"(?:yo )?(?:siempre )?prefiero",
        allergic=r"soy alérgic[oa] (?:al|a los|a las|a la|a)",
        doubted=r"no|nunca|jamás|si|quizás?|tal vez|podría|supongamos|por ejemplo",
        kept_name="Se llama {}.",
        kept_prefers="Prefiere {}.",
        kept_allergic="Alergia: {}.",
    ),
    "it": Phrases(
        name=r"mi chiamo|il mio nome è",
        prefers=r"(?:io )?preferisco(?: sempre)?",
        allergic=r"sono allergic[oa] (?:alle|agli|alla|allo|ai|al|all['’]|a)",
        doubted=r"non|mai|se|forse|potrei|supponiamo|per esempio",
        kept_name="Si chiama {}.",
        kept_prefers="Preferisce {}.",
        kept_allergic="Allergia: {}.",
    ),
    "pt": Phrases(
        name=r"(?:eu )?me chamo|chamo-me|(?:o )?meu nome é",
        prefers=r"(?:eu )?(?:sempre )?prefiro",
        allergic=r"(?:eu )?sou alérgic[oa] (?:aos|às|ao|à|a)",
        doubted=r"não|nunca|jamais|se|talvez|poderia|imagine|por exemplo",
        kept_name="Chama-se {}.",
        kept_prefers="Prefere {}.",
        kept_allergic="Alergia: {}.",
    ),
    "nl": Phrases(
        name=r"ik heet|mijn naam is",
        prefers=r"ik (?:verkies|prefereer)(?: altijd)?",
        allergic=r"ik ben allergisch voor",
        doubted=r"niet|nooit|geen|als|indien|misschien|zou|kan zijn|stel|bijvoorbeeld",
        kept_name="Heet {}.",
        kept_prefers="Verkiest {}.",
        kept_allergic="Is allergisch voor {}.",
    ),
}
