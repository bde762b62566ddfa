"""The lines of a file: each checked by itself, in their order, and all of them there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import ValidationError

from agentstate.core import canonical
from agentstate.core.errors import Invalid, TooLarge
from agentstate.core.limits import IMPORT_LINE_BYTES_MAX, IMPORT_LINES_MAX
from memory import transfer
from memory.transfer import Line


@dataclass(frozen=True, slots=True)
class Numbered:
    number: int
    line: Any


def read(file: BinaryIO) -> Iterator[Numbered]:
    """Each line checked by itself, then the end compared with what came before it. Raises: Invalid, TooLarge."""
    digest, counts, number, ended = hashlib.sha256(), Counter[str](), 0, False
    while raw := file.readline(IMPORT_LINE_BYTES_MAX + 1):
        number += 1
        if ended:
            raise bad(number, "nothing may follow the end")
        line = _parsed(raw, number)
        if isinstance(line, transfer.EndLine):
            if line.counts != dict(counts) or line.sha256 != digest.hexdigest():
                raise bad(number, "the end does not fit what came before: lines are missing, added or changed")
            ended = True
            continue
        digest.update(raw)
        counts[line.type] += 1  # type: ignore[attr-defined]
        _check_order(line, number)
        yield Numbered(number, line)
    if not ended:
        raise bad(number + 1, "the file ends too early: it has no end line")


def _parsed(raw: bytes, number: int) -> Line:
    if len(raw) > IMPORT_LINE_BYTES_MAX:
        raise TooLarge(f"Line {number} has more than {IMPORT_LINE_BYTES_MAX:,} bytes.", field=f"/{number}", line=number)
    if number > IMPORT_LINES_MAX:
        raise TooLarge(f"A file has at most {IMPORT_LINES_MAX:,} lines.", field=f"/{number}", line=number)
    try:
        found = canonical.parse(raw)
        named = found.get("type") if isinstance(found, dict) else None
        schema = transfer.BY_TYPE.get(named) if isinstance(named, str) else None
        if schema is None:
            raise bad(number, f"its type is none of {', '.join(transfer.BY_TYPE)}")
        return schema.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise bad(number, f"{'/'.join(map(str, first['loc']))}: {first['msg']}") from None
    except Invalid as error:
        raise error if error.data.get("line") else bad(number, error.message) from None


def _check_order(line: Line, number: int) -> None:
    at_the_beginning = {1: "header", 2: "subject"}
    found: str = line.type  # type: ignore[attr-defined]
    wanted = at_the_beginning.get(number, "")
    if wanted and found != wanted:
        raise bad(number, f"here the {wanted} is expected")
    if not wanted and found in at_the_beginning.values():
        raise bad(number, "a file is about one subject: this line may stand at its beginning only")


def bad(number: int, why: str) -> Invalid:
    return Invalid(f"Line {number}: {why}. Nothing was imported.", field=f"/{number}", line=number)
