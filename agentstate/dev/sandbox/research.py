"""Pages to read for research: made up, but the same text for the same topic and number every time."""

from __future__ import annotations

import hashlib

from agentstate.dev.sandbox.ledger import Json

CLAIMS = (
    "demand for {topic} grew by {n} % last year",
    "{n} studies about {topic} were withdrawn after review",
    "the price of {topic} fell by {n} % since 2021",
    "{n} of 100 people asked had heard of {topic}",
    "rules about {topic} changed in {n} countries",
    "{topic} saves {n} minutes a day where it is used well",
)
SOURCES = ("Annals of Practice", "The Harbour Gazette", "Field Reports", "Ministry Bulletin", "Open Measurements")


def page(topic: str, number: int) -> Json:
    digest = hashlib.sha256(f"{topic}|{number}".encode()).digest()
    claim = CLAIMS[digest[0] % len(CLAIMS)].format(topic=topic, n=digest[1] % 90 + 3)
    source = SOURCES[digest[2] % len(SOURCES)]
    return {
        "number": number,
        "title": f"{source}, no. {digest[3] + 1}",
        "text": f"According to {source}, {claim}. The method is described in part {digest[4] % 9 + 1}.",
        "claim": claim,
        "year": 2016 + digest[5] % 10,
    }
