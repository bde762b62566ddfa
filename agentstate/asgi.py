"""The ASGI application that uvicorn serves: the API by its own short way, the pages by Django's."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentstate.settings")
pages = get_asgi_application()  # before anything of ours is imported: it sets Django up

from agentstate.api.asgi import PREFIX, ApiHandler, Receive, Scope, Send  # noqa: E402

api = ApiHandler()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """One ASGI request."""
    handler = api if scope["type"] == "http" and scope["path"].startswith(PREFIX) else pages
    await handler(scope, receive, send)
