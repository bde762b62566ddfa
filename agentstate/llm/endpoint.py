"""An address that speaks OpenAI's API over HTTP: what is sent there, and which answers are errors.

The API key goes into one header and nowhere else: not into errors, logs or the text form of any object here.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from agentstate.core.errors import DomainError, Invalid, Unavailable

Json = Any  # what json.loads gives

CONNECT_S_MAX = 5.0
ERROR_CHARS_MAX = 300
STATUS_TRY_AGAIN = frozenset({408, 409, 425, 429})


class ModelUnavailable(Unavailable):
    """The model cannot answer now; try again shortly."""

    code = "model-unavailable"


class BadAnswer(ModelUnavailable):
    """The model answered in another form than it was asked for; ask again."""

    code = "model-bad-answer"


class ModelRefused(Invalid):
    """The model's endpoint will not answer this: check its address, key and model in the settings."""

    code = "model-refused"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the model `name` is asked. `setting`: the name under which people know `url`."""

    name: str
    url: str = field(repr=False)  # may hold a password
    key: str = field(repr=False)
    setting: str

    def post(self, path: str, asked: dict[str, Json], *, silent_s_max: float, s_max: float, bytes_max: int) -> Json:
        """The answer's JSON. `silent_s_max`: seconds without a byte, `s_max`: seconds in all, until it is given up.

        Raises: ModelUnavailable, BadAnswer (try again), ModelRefused (do not).
        """
        timeout = httpx.Timeout(silent_s_max, connect=CONNECT_S_MAX)
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        content = json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace")  # half a surrogate pair becomes "?"
        address = self.parts()
        # The password goes beside the address, not inside it: httpx logs addresses.
        auth = (address.username, address.password) if address.username else None
        place = str(address.copy_with(userinfo=b"")).rstrip("/") + path
        end = time.monotonic() + s_max
        try:
            with (
                httpx.Client(timeout=timeout, headers=headers, auth=auth) as client,
                client.stream("POST", place, content=content) as answer,
            ):
                body = _read(answer, end=end, bytes_max=bytes_max)
        except httpx.HTTPError as error:  # `from None`: it carries the request, and that the key
            raise ModelUnavailable(f"{self.place()} did not answer ({type(error).__name__}).") from None
        if answer.status_code != 200:
            raise self._refusal(answer.status_code, body)
        return _parsed(body)

    def parts(self) -> httpx.URL:
        """Raises: ModelRefused, without quoting what may hold a password."""
        try:
            address = httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError):
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise ModelRefused(f"{self.setting} is no address; it looks like https://host/v1.") from None
        return address

    def place(self) -> str:
        return f"The model {self.name} at {self.parts().host}"

    def _refusal(self, status: int, body: bytes) -> DomainError:
        said = self._without_secrets(body.decode("utf-8", "replace"))[:ERROR_CHARS_MAX]
        if status >= 500 or status in STATUS_TRY_AGAIN:
            return ModelUnavailable(f"{self.place()} answered {status}: {said}")
        return ModelRefused(f"{self.place()} answered {status}: {said}")

    def _without_secrets(self, text: str) -> str:
        """Some endpoints quote the key they were sent."""
        for secret in filter(None, (self.key, self.parts().password)):
            text = text.replace(secret, "[secret]")
        return text


def _read(answer: httpx.Response, *, end: float, bytes_max: int) -> bytes:
    kept = bytearray()
    for chunk in answer.iter_bytes():
        kept += chunk
        if len(kept) > bytes_max:
            raise httpx.DecodingError("larger than is read here")
        if time.monotonic() > end:
            raise httpx.ReadTimeout("a byte now and then, without an end")
    return bytes(kept)


def _parsed(body: bytes) -> Json:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer("The endpoint's answer is no JSON.") from None
