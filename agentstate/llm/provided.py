"""Any model that pydantic-ai knows (`anthropic:..`, `google:..`, `mistral:..`), asked as llm.chat asks its endpoint.

The package is the extra `pydantic-ai`, and the maker's own client another (`pydantic-ai-slim[anthropic]`); each reads
its key from the environment variable it documents. It is imported when the first question is asked: importing it takes
a second, and most deployments ask nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentstate.llm import prices
from agentstate.llm.chat import REPLY_S_MAX, REPLY_TOKENS_MAX, Json, Message, Reply
from agentstate.llm.endpoint import BadAnswer, ModelRefused, ModelUnavailable

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model as AnyModel

MISSING = (
    "The package pydantic-ai-slim is not installed: `pip install 'agentstate[pydantic-ai]'`, with the client of the"
    " model's maker, for instance 'pydantic-ai-slim[anthropic]'."
)
STATUS_REFUSED = frozenset({400, 401, 403, 404, 422})


@dataclass(frozen=True, slots=True)
class Provided:
    """One model by its name in pydantic-ai, `maker:model`. `reply_s_max`: seconds of the whole call, repeats of the
    maker's client included."""

    name: str
    reply_s_max: float = REPLY_S_MAX

    def complete(
        self,
        messages: Sequence[Message],
        *,
        purpose: str,
        tools: Sequence[Mapping[str, Json]] = (),
        tokens_max: int = REPLY_TOKENS_MAX,
    ) -> Reply:
        """As chat.Model; tools are not offered, since nobody here who asks a provided model has any.

        Raises: ModelUnavailable, BadAnswer (try again), ModelRefused (do not). None of them quotes the maker's words:
        some quote the key they were sent.
        """
        assert not tools, "summaries and extraction offer no tools"
        model = self._model()
        from pydantic_ai.direct import model_request_sync
        from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelHTTPError, UserError
        from pydantic_ai.settings import ModelSettings

        settings = ModelSettings(max_tokens=tokens_max, request_timeout=self.reply_s_max)
        try:
            answer = model_request_sync(model, _asked(messages), model_settings=settings)
        except ModelHTTPError as error:
            refused = ModelRefused if error.status_code in STATUS_REFUSED else ModelUnavailable
            raise refused(f"The model {self.name} answered {error.status_code}.") from None
        except (ModelAPIError, TimeoutError, OSError) as error:
            raise ModelUnavailable(f"The model {self.name} did not answer ({type(error).__name__}).") from None
        except UserError as error:
            raise ModelRefused(f"The model {self.name} cannot be asked ({type(error).__name__}).") from None
        except AgentRunError as error:
            raise BadAnswer(f"The model {self.name} answered in no known form ({type(error).__name__}).") from None
        used = answer.usage
        cost = prices.cost(self.name.replace(":", "/", 1), used.input_tokens, used.output_tokens)
        return Reply(answer.text or "", (), used.input_tokens, used.output_tokens, self.name, float(cost or 0))

    def check(self) -> None:
        """Asks nobody. Raises: ModelRefused: no such model, no client or no key for it."""
        self._model()

    def _model(self) -> AnyModel:
        try:
            from pydantic_ai.exceptions import UserError
            from pydantic_ai.models import infer_model
        except ImportError:
            raise ModelRefused(MISSING) from None
        try:
            return infer_model(self.name)
        except (UserError, ValueError):
            raise ModelRefused(f"{self.name} cannot be asked: no such maker:model, or no key for it is set.") from None
        except ImportError:
            maker = self.name.partition(":")[0]
            raise ModelRefused(f"{MISSING} No client for {maker} is installed.") from None


def _asked(messages: Sequence[Message]) -> list[ModelMessage]:
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    found: list[ModelMessage] = []
    for message in messages:
        if message.role == "assistant":
            found.append(ModelResponse(parts=[TextPart(message.content)]))
        elif message.role == "system":
            found.append(ModelRequest(parts=[SystemPromptPart(message.content)]))
        else:
            found.append(ModelRequest(parts=[UserPromptPart(message.content)]))
    return found
