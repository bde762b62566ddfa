"""A measurement, not part of the suite: recall on recorded conversations that do not belong to this repository.

    AGENTSTATE_RECORDED=locomo10.zip python -m pytest tests/bench/recorded.py -q -s

The file is the one of LoCoMo (Maharana et al., 2024; CC BY-NC 4.0): a zip of JSON files, one conversation each, with
`session_<n>`, `session_<n>_date_time` and `qa`. Questions without an answer in the conversation (category 5) are left
out, and so is what pictures show.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from tests.bench import quality
from tests.bench.conversations import Asked, Conversation, Turn

Json = Any  # what json.loads gives
CATEGORIES = {1: "several facts", 2: "time", 3: "knowledge of the world", 4: "one fact"}
SAID = re.compile(r"D:?(\d+):(\d+)")  # session and turn, from 1
AIMS = {"bits": 0.80, "sentence": 0.75, "words": 0.70}  # recall@10
SEVERAL_AIM = 0.52  # where there are several pieces of evidence


def read(path: Path) -> Iterator[Conversation]:
    with zipfile.ZipFile(path) as archive:
        files = sorted(name for name in archive.namelist() if name.endswith(".json"))
        for number, name in enumerate(files):
            yield conversation(json.loads(archive.read(name)), number=number)


def conversation(recorded: Json, *, number: int) -> Conversation:
    """Sessions in their order; evidence that is not there is passed over, and so are questions with none."""
    names = [match[0] for match in map(re.compile(r"session_\d+").fullmatch, recorded) if match and recorded[match[0]]]
    names.sort(key=lambda name: int(name.removeprefix("session_")))
    place = {
        SAID.findall(said["dia_id"])[0]: (session, turn)
        for session, name in enumerate(names)
        for turn, said in enumerate(recorded[name])
    }
    return Conversation(
        half="recorded",
        number=number,
        starts=[_moment(recorded[f"{name}_date_time"]) for name in names],
        sessions=[[Turn(said["speaker"], said["text"].strip() or "-") for said in recorded[name]] for name in names],
        questions=list(_questions(recorded["qa"], place)),
    )


def _questions(asked: Json, place: dict[tuple[str, str], tuple[int, int]]) -> Iterator[Asked]:
    for question in asked:
        named = SAID.findall(" ".join(question.get("evidence", [])))
        evidence = tuple(dict.fromkeys(place[one] for one in named if one in place))
        if evidence and question["category"] in CATEGORIES:
            yield Asked(question["question"], CATEGORIES[question["category"]], evidence, shares_words=False)


def _moment(written: str) -> datetime:
    """1:56 pm on 8 May, 2023."""
    return datetime.strptime(written.replace(",", ""), "%I:%M %p on %d %B %Y").replace(tzinfo=UTC)


@pytest.mark.django_db
def test_recall_on_recorded_conversations_reaches_its_aims(tenant: Tenant) -> None:
    path, model = os.environ.get("AGENTSTATE_RECORDED", ""), quality.local_model()
    if not path or model is None:
        pytest.fail("AGENTSTATE_RECORDED names the file, and the embedding model has to be installed.")
    with tenant_scope(tenant.id):
        stored = [quality.store(made) for made in read(Path(path))]
        quality.embed(model)
        for rung in quality.RUNGS:
            results = quality.measure(stored, rung, model)
            every = quality.Quality.of(results)
            several = quality.Quality.of([result for result in results if len(result.ranks) > 1])
            print(f"{rung}: {every}\n  several: {several}")
            for name in CATEGORIES.values():
                of_name = [result for result in results if result.category == name]
                print(f"  {name}: recall@10 {quality.Quality.of(of_name).at_10:.3f} of {len(of_name)}")
            assert every.at_10 >= AIMS[rung]
            assert rung != "bits" or several.at_10 >= SEVERAL_AIM
