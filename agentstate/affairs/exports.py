"""An export on its way out: made piece by piece in a database thread, so that neither side holds all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from django.http import StreamingHttpResponse

from agentstate.http import waiting
from memory import transfer

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"}


def answer(pieces: Iterator[bytes], *, name: str, first: bytes = b"") -> StreamingHttpResponse:
    """A file of this name. `first`: what was made already, to refuse before the answer begins."""
    return StreamingHttpResponse(
        _streamed(first, pieces),
        content_type=transfer.MEDIA_TYPE,
        headers={**HEADERS, "Content-Disposition": f'attachment; filename="{name}.ndjson"'},
    )


async def _streamed(first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    piece: bytes | None = first
    while piece is not None:
        if piece:
            yield piece
        piece = await waiting.in_database(lambda: next(pieces, None))
