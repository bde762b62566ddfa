"""The ASGI application that uvicorn serves: the API by its own short way, the pages by Django's."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentstate.settings")
pages = get_asgi_application()  # before anything of ours is imported: it sets Django up

from agentstate.api.asgi import PREFIX, ApiHandler  # noqa: E402

api = ApiHandler()
Message = dict[str, Any]


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """One ASGI request."""
    handler = api if scope["type"] == "http" and scope["path"].startswith(PREFIX) else pages
    await handler(scope, receive, send)
