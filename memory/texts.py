"""Text as it comes in: checked once at the door, and brought into one form where two texts are compared."""

from __future__ import annotations

import unicodedata

from agentstate.core.errors import Invalid, TooLarge


def clean(text: str, *, field: str, bytes_max: int) -> str:
    """The text unchanged, when it can be kept. `bytes_max`: of its UTF-8.

    Raises: Invalid (naming the field) for no text, NUL and half surrogate pairs; TooLarge with both numbers.
    """
    check(text, field=field, bytes_max=bytes_max)
    if not text or text.isspace():
        raise Invalid(f"{field} holds no text. Write something, or leave it out.", field=field)
    return text


def optional(text: str, *, field: str, bytes_max: int) -> str:
    """As clean(), but an empty text is fine."""
    check(text, field=field, bytes_max=bytes_max)
    return text


def check(text: str, *, field: str, bytes_max: int) -> None:
    """Raises: Invalid, TooLarge."""
    if not isinstance(text, str):
        raise Invalid(f"{field} must be text, not {type(text).__name__}.", field=field)
    if "\0" in text:
        raise Invalid(f"{field} holds a NUL character, which Postgres cannot keep. Remove it.", field=field)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{field} holds half a surrogate pair. Send valid UTF-8.", field=field) from None
    if size > bytes_max:
        raise TooLarge(
            f"{field} is {size:,} bytes long; at most {bytes_max:,} are kept here. Shorten or split it.",
            field=field,
            bytes=size,
            bytes_max=bytes_max,
        )


def normalised(text: str) -> str:
    """The form in which texts are compared and digested: NFKC, without case, white space as single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
