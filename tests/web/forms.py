"""Forms as a browser without JavaScript sends them: every field of the page, changed where somebody types."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Protocol


class Answer(Protocol):
    @property
    def content(self) -> bytes: ...


def text(answer: Answer) -> str:
    return answer.content.decode()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, object]] = []
        self.area: str | None = None
        self.select: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        has = dict(attributes)
        name = has.get("name")
        if tag == "form":
            self.forms.append({"action": has.get("action") or "", "method": has.get("method") or "get", "fields": {}})
        elif not self.forms or not name:
            if tag == "option" and self.select and ("selected" in has or self.select not in self.fields):
                self.fields[self.select] = has.get("value") or ""
        elif tag == "textarea":
            self.area = name
            self.fields[name] = ""
        elif tag == "select":
            self.select = name
        elif tag == "input" and has.get("type") in ("checkbox", "radio"):
            if "checked" in has:
                self.fields[name] = has.get("value") or "on"
        elif tag == "input":
            self.fields[name] = has.get("value") or ""

    @property
    def fields(self) -> dict[str, str]:
        found = self.forms[-1]["fields"]
        assert isinstance(found, dict)
        return found

    def handle_data(self, data: str) -> None:
        if self.area:
            self.fields[self.area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self.area:
            self.fields[self.area] = self.fields[self.area].removeprefix("\n")
            self.area = None
        elif tag == "select":
            self.select = None


def form(page: str, *, having: str) -> dict[str, str]:
    """The fields of the form that has a field of this name."""
    reader = _Reader()
    reader.feed(page)
    for found in reader.forms:
        fields = found["fields"]
        assert isinstance(fields, dict)
        if having in fields:
            return dict(fields)
    raise AssertionError(f"no form has a field {having}: {[found['fields'] for found in reader.forms]}")
