"""Asking a language model: one protocol, and an endpoint that speaks OpenAI's chat completions over HTTP.

The API key goes into one header and nowhere else: not into errors, logs or the text form of any object here. What a
model answers is checked before anybody uses it; an answer that does not fit is an error that may be tried again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from agentstate.core import tokens
from agentstate.llm import prices
from agentstate.llm.endpoint import Address, BadAnswer, Json, ModelRefused, ModelUnavailable

__all__ = ["BadAnswer", "Endpoint", "Json", "Message", "Model", "ModelRefused", "ModelUnavailable", "Reply", "ToolCall"]

Shape = TypeVar("Shape", bound=BaseModel)

OPENAI_URL = "https://api.openai.com/v1"
REPLY_S_MAX = 120.0
REPLY_WHOLE_S_MAX = 600.0
REPLY_BYTES_MAX = 4 * 1024 * 1024
REPLY_TOKENS_MAX = 1_500


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    call_id: str
    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Reply:
    """`cost` in US dollars by the price list, 0 for a model that is not on it."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    model: str = ""
    cost: float = 0.0


class Model(Protocol):
    def complete(
        self,
        messages: Sequence[Message],
        *,
        purpose: str,
        tools: Sequence[Mapping[str, Json]] = (),
        tokens_max: int = REPLY_TOKENS_MAX,
    ) -> Reply:
        """Answer. `purpose` names what the call is for: a scripted model acts by it, an endpoint does not see it.

        Raises: ModelUnavailable, BadAnswer (try again), ModelRefused (do not).
        """


def ask_for(model: Model, shape: type[Shape], messages: Sequence[Message], *, purpose: str) -> tuple[Shape, Reply]:
    """An answer as an object of this shape, with the reply it came in.

    Raises: as complete(); BadAnswer says what does not fit, without the customer's text.
    """
    schema = json.dumps(shape.model_json_schema(), ensure_ascii=False)
    form = Message("system", f"Answer with one JSON object and nothing else. Its JSON Schema:\n{schema}")
    reply = model.complete([form, *messages], purpose=purpose)
    try:
        return shape.model_validate(_json_object(reply.text)), reply
    except ValidationError as wrong:
        fields = ", ".join(sorted({".".join(map(str, error["loc"])) or "the whole" for error in wrong.errors()}))
        raise BadAnswer(f"The model's answer for {purpose} does not fit in: {fields}. Ask again.") from None


def from_environment(env: Mapping[str, str] | None = None) -> Endpoint | None:
    """The endpoint that OPENAI_BASE_URL, OPENAI_API_KEY and AGENTSTATE_MODEL name; None when no model is chosen.

    A key alone chooses nothing: it may lie in the environment for another program.
    Raises: ModelRefused when an address is given without a model.
    """
    env = os.environ if env is None else env
    name, url = env.get("AGENTSTATE_MODEL", ""), env.get("OPENAI_BASE_URL", "")
    if name in ("", "scripted"):
        if url and not name:
            raise ModelRefused("OPENAI_BASE_URL is set but no model is chosen: set AGENTSTATE_MODEL.")
        return None
    return Endpoint(name=name, url=url or OPENAI_URL, key=env.get("OPENAI_API_KEY", ""))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model behind an OpenAI-compatible address. `reply_s_max`: seconds without a byte before it is given up."""

    name: str
    url: str = field(default=OPENAI_URL, repr=False)  # may hold a password
    key: str = field(default="", repr=False)
    reply_s_max: float = REPLY_S_MAX

    def complete(
        self,
        messages: Sequence[Message],
        *,
        purpose: str,
        tools: Sequence[Mapping[str, Json]] = (),
        tokens_max: int = REPLY_TOKENS_MAX,
    ) -> Reply:
        asked: dict[str, Json] = {
            "model": self.name,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            self._limit_name(): tokens_max,
        }
        if tools:
            asked["tools"] = [{"type": "function", "function": dict(tool)} for tool in tools]
        return self._reply(self._post(asked), messages)

    def check(self) -> None:
        """Asks nobody. Raises: ModelRefused when the address is none."""
        self._address().parts()

    def _post(self, asked: dict[str, Json]) -> Json:
        return self._address().post(
            "/chat/completions",
            asked,
            silent_s_max=self.reply_s_max,
            s_max=max(self.reply_s_max, REPLY_WHOLE_S_MAX),
            bytes_max=REPLY_BYTES_MAX,
        )

    def _reply(self, body: Json, messages: Sequence[Message]) -> Reply:
        try:
            message = body["choices"][0]["message"]
            text = message.get("content") or ""
            calls = tuple(_tool_call(call) for call in message.get("tool_calls") or ())
            used = body.get("usage") or {}
            tokens_in = int(used.get("prompt_tokens") or sum(tokens.count(message.content) for message in messages))
            tokens_out = int(used.get("completion_tokens") or tokens.count(text))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise BadAnswer("The endpoint's answer is no chat completion.") from None
        if not isinstance(text, str):
            raise BadAnswer("The endpoint's answer holds no text.")
        cost = prices.cost(self.name, tokens_in, tokens_out)
        return Reply(text, calls, tokens_in, tokens_out, self.name, float(cost or 0))

    def _address(self) -> Address:
        return Address(self.name, self.url, self.key, setting="OPENAI_BASE_URL")

    def _limit_name(self) -> str:
        """OpenAI's newer models refuse the older name, most other servers know only that."""
        return "max_completion_tokens" if self._address().parts().host == "api.openai.com" else "max_tokens"


def _tool_call(call: Json) -> ToolCall:
    """Raises: ValueError, KeyError, TypeError."""
    arguments = json.loads(call["function"]["arguments"] or "{}")
    if not isinstance(arguments, dict):
        raise TypeError("arguments")
    return ToolCall(str(call.get("id", "")), str(call["function"]["name"]), arguments)


_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def _json_object(text: str) -> Json:
    """The JSON object in an answer that may be fenced or have words around it. Raises: BadAnswer."""
    fenced = _FENCED.search(text)
    inside = fenced[1] if fenced else text[text.find("{") : text.rfind("}") + 1]
    try:
        found = json.loads(inside)
    except (ValueError, RecursionError):
        raise BadAnswer("The model's answer holds no JSON object. Ask again.") from None
    if not isinstance(found, dict):
        raise BadAnswer("The model's answer is JSON, but no object. Ask again.")
    return found
