"""Two JSON values side by side: the paths where they differ, in order, with a cap that is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from agentstate.http.redaction import redact
from agentstate.web.values import short

ROWS_MAX = 200


class _Absent:
    pass


ABSENT = _Absent()


@dataclass(frozen=True, slots=True)
class Row:
    op: str  # "~" changed, "+" added, "−" removed
    path: str  # JSON pointer
    before: str
    after: str

    @property
    def word(self) -> str:
        return {"~": "changed", "+": "added"}.get(self.op, "removed")


@dataclass(frozen=True, slots=True)
class Difference:
    rows: list[Row]
    cut: bool  # more rows than are shown

    def __bool__(self) -> bool:
        return bool(self.rows)


def difference(before: Any, after: Any, *, rows_max: int = ROWS_MAX) -> Difference:
    found = list(islice(_walk("", redact(before), redact(after)), rows_max + 1))
    return Difference(found[:rows_max], cut=len(found) > rows_max)


def _walk(path: str, before: Any, after: Any) -> Iterator[Row]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _walk(f"{path}/{_token(key)}", before.get(key, ABSENT), after.get(key, ABSENT))
    elif isinstance(before, list) and isinstance(after, list) and (before or after):
        yield from _lists(path, before, after)
    elif before is ABSENT:
        yield Row("+", path or "/", "", short(after))
    elif after is ABSENT:
        yield Row("−", path or "/", short(before), "")
    elif type(before) is not type(after) or before != after:
        yield Row("~", path or "/", short(before), short(after))


def _lists(path: str, before: list[Any], after: list[Any]) -> Iterator[Row]:
    for index in range(max(len(before), len(after))):
        old = before[index] if index < len(before) else ABSENT
        new = after[index] if index < len(after) else ABSENT
        yield from _walk(f"{path}/{index}", old, new)


def _token(key: str) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")
