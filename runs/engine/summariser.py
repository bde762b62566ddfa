"""The model that summarises the scratchpads of hosted agents, when SCRATCHPAD_SUMMARY says so."""

from __future__ import annotations

import json

from django.conf import settings

from agentstate.llm import summarising
from agentstate.llm.chat import Message
from agentstate.sdk import reads
from agentstate.sdk.summariser import Summarise


def by_setting() -> Summarise | None:
    """None: extracts. The executor falls back to them whenever the model fails, and says so in the step."""
    asked = summarising.model() if settings.SCRATCHPAD_SUMMARY == "model" else None
    if asked is None:
        return None

    def summarise(text: str, tokens_max: int) -> str:
        task = summarising.TASK.format(words=max(1, int(tokens_max * summarising.WORDS_PER_TOKEN)))
        texts = json.dumps([text], ensure_ascii=False)
        messages = [Message("system", task), Message("user", texts)]
        reply = asked.complete(messages, purpose="summarise", tokens_max=max(1, tokens_max))
        reads.usage(model=reply.model, tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, cost=reply.cost)
        return summarising.THOUGHT.sub("", reply.text).strip()

    return summarise
