"""What an author declares: schemas, effect classes, fingerprints; and what is refused at import."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import linecache
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pydantic
import pytest

import agentstate as st
from agentstate.core.errors import Invalid
from agentstate.sdk import code, schemas, values
from agentstate.sdk.durations import seconds
from agentstate.testing import MemoryStore, run_agent

ROOT = Path(__file__).parents[2]


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclasses.dataclass
class Item:
    name: str
    size: Size
    tags: list[str] = dataclasses.field(default_factory=list)
    count: int = 1


class Order(pydantic.BaseModel):
    id: UUID
    items: list[str] = []


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (int | None, {"type": ["integer", "null"]}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Size, {"enum": ["s", "l"]}),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (Annotated[str, "who"], {"type": "string", "description": "who"}),
        (Annotated[int, {"minimum": 1}], {"type": "integer", "minimum": 1}),
        (tuple[str, int], {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2}),
        (Any, {}),
    ],
)
def test_a_hint_becomes_a_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert schemas.schema_of(hint) == schema


def test_a_dataclass_and_a_model_become_objects() -> None:
    item = schemas.schema_of(Item)
    assert item["required"] == ["name", "size"]
    assert item["properties"]["count"] == {"type": "integer", "default": 1}
    assert schemas.schema_of(Order)["properties"]["id"] == {"format": "uuid", "title": "Id", "type": "string"}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Item, Item("x", Size.LARGE, ["a"], 2)),
        (list[Item], [Item("x", Size.SMALL)]),
        (Order, Order(id=uuid4(), items=["a"])),
        (dict[str, Decimal], {"a": Decimal("1.50")}),
        (dt.datetime | None, dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (dt.timedelta, dt.timedelta(seconds=90)),
        (int | str, "7"),
        (float, 2.0),
    ],
)
def test_a_value_comes_back_from_its_record_as_what_its_hint_names(hint: Any, value: Any) -> None:
    plain = sorted(value) if isinstance(value, set) else value
    assert values.hydrate(hint, values.settled(plain)) == value


def test_what_has_no_json_form_is_refused_with_its_place() -> None:
    with pytest.raises(Invalid, match="/output/a/1 is a object"):
        values.settled({"a": [1, object()]}, where="/output")
    with pytest.raises(Invalid, match="use text as keys"):
        values.settled({1: 2})


def test_a_step_gives_the_same_value_in_its_first_run_and_in_a_replay() -> None:
    seen: list[Any] = []

    @st.step
    def look() -> tuple[Item, list[tuple[int, int]]]:
        return Item("x", Size.SMALL), [(1, 2)]

    @st.agent("typed", tools=[look])
    def main() -> str:
        seen.append(look())
        st.sleep(60)
        return "end"

    run_agent(main, store=MemoryStore())
    assert len(seen) == 2
    assert seen[0] == seen[1] == (Item("x", Size.SMALL), [(1, 2)])


def test_durations_are_seconds_or_text() -> None:
    assert [seconds(text) for text in ("90s", "15m", "24h", "7d", 2, 0.5)] == [90, 900, 86_400, 604_800, 2, 0.5]
    for text in ("soon", "-1s", "nans", -1):
        with pytest.raises(ValueError, match=r"duration|could not convert"):
            seconds(text)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"effect": "keyed"}, "needs window="),
        ({"effect": "probed"}, "needs probe="),
        ({"effect": "careful"}, "effect is one of"),
        ({"locked": ("nope",)}, "no argument 'nope'"),
        ({"name": "a/b"}, "no usable name"),
    ],
)
def test_a_mistaken_declaration_is_refused_at_import(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        st.tool(**options)(lambda path: path)


def test_a_tool_is_destructive_unless_it_says_otherwise() -> None:
    @st.tool
    def delete(path: str, force: bool = False, *, idempotency_key: str = "") -> None:
        """Deletes it."""

    spec = delete.tool
    assert spec is not None
    assert (spec.effect, spec.risk, spec.note, spec.timeout_s) == ("destructive", "high", "Deletes it.", 60.0)
    assert list(spec.schema["properties"]) == ["path", "force"]
    assert spec.schema["required"] == ["path"]
    with pytest.raises(RuntimeError, match="has side effects"):
        delete("/x")
    with pytest.raises(TypeError, match="filled in by the runtime"):
        run_in(lambda: delete("/x", idempotency_key="mine"))


def run_in(body: Callable[[], Any]) -> None:
    """Run it as an agent's main, and raise what it raised."""
    caught: list[Exception] = []

    @st.agent("inline")
    def main() -> None:
        try:
            body()
        except Exception as error:
            caught.append(error)

    run_agent(main, store=MemoryStore())
    raise caught[0]


def test_a_plain_step_runs_bare_outside_of_a_run() -> None:
    @st.step
    def double(n: int) -> int:
        return 2 * n

    assert double(2) == 4
    assert st.gather(lambda: double(1), lambda: double(2)) == [2, 4]
    with pytest.raises(RuntimeError, match="only inside a run"):
        st.now()
    with pytest.raises(RuntimeError, match="only inside a run"):
        st.state["x"] = 1


def test_input_fills_parameters_by_name_or_is_handed_over_whole() -> None:
    def run(fn: Callable[..., Any], input: Any) -> Any:
        info = run_agent(st.agent("inputs")(fn), input, store=MemoryStore())
        return info.output if info.failure is None else info.failure.message

    def named(q: str, n: int = 2) -> Any:
        return [q, n]

    def whole(order: Order) -> Any:
        return [str(order.id), order.items]

    def single(q: str) -> Any:
        return q

    def mapping(ticket: dict[str, Any]) -> Any:
        return ticket

    order_id = uuid4()
    assert run(named, {"q": "x"}) == ["x", 2]
    assert run(named, {"q": "x", "n": 5}) == ["x", 5]
    assert "missing ['q'], unknown ['z']" in run(named, {"z": 1})
    assert run(whole, {"id": str(order_id), "items": ["a"]}) == [str(order_id), ["a"]]
    assert run(single, {"q": "x"}) == run(single, "x") == "x"
    assert run(mapping, {"ticket": 1}) == {"ticket": 1}
    assert run(lambda: "none", None) == "none"


# Fingerprints


def sources(body: str) -> dict[str, str]:
    """Fingerprint of the agent in this source text."""
    name = f"<test {hash(body)}>"
    linecache.cache[name] = (len(body), None, body.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": name}
    exec(compile(body, name, "exec"), space)
    return dict(code.parts_of(space["main"].fn).fingerprint)


BASE = '''
import agentstate as st

@st.step
def look(q):
    """Looks."""
    return q

@st.tool(effect="destructive")
def delete(path):
    return path

def helper(q):
    return delete(q)

@st.agent("x")
def main(q):
    # a comment
    return helper(look(q))
'''


def test_layout_comments_and_docstrings_do_not_change_a_fingerprint() -> None:
    base = sources(BASE)
    assert sorted(base) == ["function helper", "main", "step look", "tool delete"]
    assert sources(BASE.replace('"""Looks."""', '"""Finds."""').replace("# a comment", "# another\n")) == base
    assert sources("\n\n\n" + BASE.replace("return q", "return (  q  )")) == base


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("return q", "return [q]", "step look"),
        ("return path", "return 0", "tool delete"),
        ('effect="destructive"', 'effect="pure"', "tool delete"),
        ("return helper(look(q))", "return helper(q) and look(q)", "main"),
        ("return delete(q)", "return delete(q + q)", "function helper"),
    ],
)
def test_a_change_is_named_by_its_part(old: str, new: str, part: str) -> None:
    base, changed = sources(BASE), sources(BASE.replace(old, new, 1))
    assert {name for name in base if base[name] != changed.get(name)} == {part}


def test_two_steps_of_one_name_are_refused() -> None:
    @st.step(name="same")
    def one() -> None: ...

    @st.step(name="same")
    def two() -> None: ...

    @st.agent("twins", tools=[one, two])
    def main() -> None: ...

    with pytest.raises(ValueError, match="Two steps of this agent"):
        main.spec()


def test_importing_the_sdk_brings_no_server_and_no_http() -> None:
    script = (
        "import agentstate, sys; assert 'agentstate.sdk' not in sys.modules; agentstate.step;"
        "bad = {'django', 'celery', 'httpx', 'pydantic', 'redis', 'psycopg'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_every_name_of_the_sdk_is_a_name_of_the_package() -> None:
    import agentstate.sdk

    assert {name for name in agentstate.sdk.__all__ if not hasattr(st, name)} == set()
    assert set(agentstate.sdk.__all__) <= set(dir(st))
    with pytest.raises(AttributeError):
        st.nothing  # noqa: B018
