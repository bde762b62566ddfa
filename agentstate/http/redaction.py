"""Secrets never reach a page or its JSON twin: one pass over a value before it is shown.

A key whose name says secret hides its value; a text that has the shape of a credential is hidden wherever it stands.
"""

from __future__ import annotations

import re
from typing import Any

SECRET_KEY = re.compile(
    r"(?i)(?:^|[_\-. ])(?:pass(?:word|wd|phrase)?|secret|api[_-]?key|private[_-]?key|access[_-]?key|authorization|"
    r"(?:access|refresh|auth|id|bearer|session|csrf)[_-]?token|token|cookie|set-cookie|credentials?|cvv|cvc|pin|iban|"
    r"card[_-]?number|client[_-]?secret)$"
)
SECRET_TEXT = (
    ("private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)")),
    ("bearer token", re.compile(r"(?i)\bbearer\s+[\w\-.~+/]{16,}=*")),
    ("token", re.compile(r"\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]{8,}")),
    ("API key", re.compile(r"\b(?:sk|pk|rk|as|ghp|gho|xox[abp])[-_][A-Za-z0-9_\-]{20,}\b")),
    ("access key", re.compile(r"\bAKIA[0-9A-Z]{16}\b")),
    ("password in a URL", re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")),
)
# Not inside a word, a UUID or a fraction: of ids in hexadecimal digits some have as many decimal ones in a row.
CARD = re.compile(r"(?<!\w)(?<!\d\.)(?<![0-9a-f]{4}-)(?:\d[ -]?){12,18}\d(?!\w|\.\d)")


class Hidden(str):
    """Stands where a secret stood; `kind` says what was there."""

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, kind: str) -> Hidden:
        text = super().__new__(cls, f"[hidden: {kind}]")
        text.kind = kind
        return text


def redact(value: Any) -> Any:
    """A copy of a JSON value in which secrets are Hidden or cut out of the text around them."""
    if isinstance(value, dict):
        return {key: _member(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [redact(part) for part in value]
    return redact_text(value) if isinstance(value, str) else value


def _member(key: str, value: Any) -> Any:
    if value not in (None, "", False, True) and not isinstance(value, dict | list) and secret_name(key):
        return Hidden(key)
    return redact(value)


def secret_name(key: str) -> bool:
    return SECRET_KEY.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)) is not None


def redact_text(text: str) -> str:
    if isinstance(text, Hidden) or len(text) < 12:
        return text
    for kind, pattern in SECRET_TEXT:
        if pattern.fullmatch(text):
            return Hidden(kind)
        text = pattern.sub(f"[hidden: {kind}]", text)
    if CARD.fullmatch(text) and _luhn(text):
        return Hidden("card number")
    return CARD.sub(lambda found: "[hidden: card number]" if _luhn(found[0]) else found[0], text)


def _luhn(text: str) -> bool:
    digits = [int(sign) for sign in text if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
