"""The OpenAPI document is part of the review: a change of it is a change of tests/api/openapi.json."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agentstate.api.urls import api
from agentstate.sdk import store, wire
from runs.schemas import protocol, work

SNAPSHOT = Path(__file__).with_name("openapi.json")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(api.get_openapi_schema(path_prefix="api/v1/")))
    return found


def test_the_document_is_the_one_that_was_reviewed(document: dict[str, Any]) -> None:
    """To accept a change: `.venv/bin/python -m tests.api.test_openapi`."""
    assert document == json.loads(SNAPSHOT.read_text())


def test_every_reference_leads_somewhere_and_every_operation_can_be_refused(document: dict[str, Any]) -> None:
    named = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in named
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "default" in operation["responses"], (method, path)
            assert operation["description"] and operation["security"], (method, path)


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return here + [found for value in part.values() for found in _references(value)]
    return [found for value in part for found in _references(value)] if isinstance(part, list) else []


@pytest.mark.parametrize(
    ("shown", "read"),
    [
        (protocol.TurnIn, store.Turn),
        (protocol.ClaimIn, wire.ClaimRequest),
        (protocol.AgentSpecIn, store.AgentSpec),
        (protocol.StepFinishIn, store.StepFinish),
        (protocol.ClaimOut, store.Claim),
        (protocol.BegunOut, store.Begun),
    ],
)
def test_what_the_document_shows_is_what_the_wire_reads(shown: Any, read: Any) -> None:
    members = shown.model_json_schema()["properties"].keys()
    assert members == {each.name for each in fields(read)}


def test_the_small_calls_take_what_a_step_takes() -> None:
    begin = {each.name for each in fields(store.StepStart)} - {"identity", "result"} | {"key", "ordinal", "park"}
    assert work.StepIn.model_json_schema()["properties"].keys() == begin
    finish = {each.name for each in fields(store.StepFinish)} - {"seq"}
    assert work.FinishIn.model_json_schema()["properties"].keys() == finish


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(api.get_openapi_schema(path_prefix="api/v1/"), indent=1) + "\n")
