"""The OpenAPI document: ninja's, with the protocol's bodies and every refusal as a problem."""

from __future__ import annotations

from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agentstate.http.problems import MEDIA_TYPE
from agentstate.http.schemas import Problem
from runs.schemas import protocol, work

BODIES: tuple[type[BaseModel], ...] = (
    protocol.AgentSpecIn,
    protocol.ClaimIn,
    protocol.ScratchpadIn,
    protocol.StepFinishIn,
    protocol.TurnIn,
    *protocol.MEMORY_BODIES,
    work.FinishIn,
    work.StepIn,
)
REFERENCE = "#/components/schemas/{model}"
PROBLEM = {"$ref": REFERENCE.format(model=Problem.__name__)}
REFUSED = {"description": "Refused; the problem says why and what to do.", "content": {MEDIA_TYPE: {"schema": PROBLEM}}}


class Api(NinjaAPI):
    def get_openapi_schema(self, **given: Any) -> OpenAPISchema:
        document = super().get_openapi_schema(**given)
        schemas = document["components"]["schemas"]
        described: list[type[BaseModel]] = [*BODIES, Problem]
        _, found = models_json_schema([(each, "validation") for each in described], ref_template=REFERENCE)
        schemas.update(found["$defs"])
        for operations in document["paths"].values():
            for operation in operations.values():
                _say_refusals(operation["responses"])
        document["components"]["schemas"] = dict(sorted(schemas.items()))
        return document


def _say_refusals(responses: dict[Any, Any]) -> None:
    for status, response in responses.items():
        if int(status) >= 400:
            response.update(REFUSED)
    responses["default"] = REFUSED
