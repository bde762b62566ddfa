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
from typing import Any, Literal, Protocol, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from agentstate.core import tokens
from agentstate.core.errors import DomainError, Invalid, Unavailable
from agentstate.llm import prices

Json = Any  # what json.loads gives
Shape = TypeVar("Shape", bound=BaseModel)

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_S_MAX = 5.0
REPLY_S_MAX = 120.0
REPLY_BYTES_MAX = 4 * 1024 * 1024
REPLY_TOKENS_MAX = 1_500
ERROR_CHARS_MAX = 300
STATUS_TRY_AGAIN = frozenset({408, 409, 425, 429})


class ModelUnavailable(Unavailable):
    """The model cannot answer now; try again shortly."""

    code = "model-unavailable"


class BadAnswer(ModelUnavailable):
    """The model answered in another form than it was asked for; ask again."""

    code = "model-bad-answer"


class ModelRefused(Invalid):
    """The model's endpoint will not answer this: check OPENAI_BASE_URL, OPENAI_API_KEY and AGENTSTATE_MODEL."""

    code = "model-refused"


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

    def _post(self, asked: dict[str, Json]) -> Json:
        timeout = httpx.Timeout(self.reply_s_max, connect=CONNECT_S_MAX)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        address = self._address()
        # The password goes beside the address, not inside it: httpx logs addresses.
        auth = (address.username, address.password) if address.username else None
        place = str(address.copy_with(userinfo=b"")).rstrip("/") + "/chat/completions"
        try:
            with (
                httpx.Client(timeout=timeout, headers=headers, auth=auth) as client,
                client.stream("POST", place, json=asked) as answer,
            ):
                body = _read(answer)
        except httpx.HTTPError as error:  # `from None`: it carries the request, and that the key
            raise ModelUnavailable(f"{self._place()} did not answer ({type(error).__name__}).") from None
        if answer.status_code != 200:
            raise self._refusal(answer.status_code, body)
        return _parsed(body)

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

    def _refusal(self, status: int, body: bytes) -> DomainError:
        said = self._without_secrets(body.decode("utf-8", "replace"))[:ERROR_CHARS_MAX]
        if status >= 500 or status in STATUS_TRY_AGAIN:
            return ModelUnavailable(f"{self._place()} answered {status}: {said}")
        return ModelRefused(f"{self._place()} answered {status}: {said}")

    def _address(self) -> httpx.URL:
        """Raises: ModelRefused, without quoting what may hold a password."""
        try:
            address = httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError):
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise ModelRefused("OPENAI_BASE_URL is no address; it looks like https://host/v1.") from None
        return address

    def _limit_name(self) -> str:
        """OpenAI's newer models refuse the older name, most other servers know only that."""
        return "max_completion_tokens" if self._address().host == "api.openai.com" else "max_tokens"

    def _place(self) -> str:
        return f"The model {self.name} at {self._address().host}"

    def _without_secrets(self, text: str) -> str:
        """Some endpoints quote the key they were sent."""
        for secret in filter(None, (self.key, self._address().password)):
            text = text.replace(secret, "[secret]")
        return text


def _read(answer: httpx.Response) -> bytes:
    kept = bytearray()
    for chunk in answer.iter_bytes():
        kept += chunk
        if len(kept) > REPLY_BYTES_MAX:
            raise httpx.DecodingError("larger than is read here")
    return bytes(kept)


def _parsed(body: bytes) -> Json:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer("The endpoint's answer is no JSON.") from None


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
