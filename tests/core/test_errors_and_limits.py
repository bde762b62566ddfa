from __future__ import annotations

import subprocess
import sys

import pytest

from agentstate.core import clock, errors, limits


def every_error(root: type[errors.DomainError] = errors.DomainError) -> list[type[errors.DomainError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in every_error(child))]


def test_every_error_has_its_own_code_a_status_and_a_message() -> None:
    kinds = [kind for kind in every_error() if kind.__module__ == errors.__name__]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for kind in kinds:
        assert 400 <= kind.http_status <= 599
        assert kind().message.endswith(".")
        assert kind("Said otherwise.").message == "Said otherwise."


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = errors.__doc__ or ""
    for kind in every_error():
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in drawn


def test_an_error_carries_what_the_caller_needs() -> None:
    error = errors.Conflict("Decided already.", field="/status", by="Alice")
    assert (error.field, error.data) == ("/status", {"by": "Alice"})


def test_every_bound_names_its_unit() -> None:
    units = (
        "_MAX",
        "_MIN",
        "_WARN",
        "_BYTES_INLINE",
        "_MS",
        "_S",
        "_DAYS",
        "_ROWS",
        "_RUNS",
        "_SHARE",
        "_TOKENS",
        "_UNITS",
    )
    for name in dir(limits):
        if name.isupper() and name not in {"KIB", "MIB"}:
            assert name.endswith(units), name


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("STATE_BYTES_MAX = 1 * MIB", "STATE_BYTES_MAX = 1 * KIB"),
        ("KEYFRAME_DELTAS_MIN = 8", "KEYFRAME_DELTAS_MIN = 64"),
        ("JSON_DEPTH_MAX = 100", "JSON_DEPTH_MAX = 300"),
    ],
)
def test_bounds_that_contradict_each_other_stop_the_import(line: str, broken: str) -> None:
    source = open(limits.__file__).read()  # noqa: PTH123, SIM115
    assert line in source
    with pytest.raises(AssertionError):
        exec(compile(source.replace(line, broken), "limits", "exec"), {})


def test_the_clock_is_aware_and_utc() -> None:
    moment = clock.now()
    assert moment.utcoffset() is not None
    assert moment.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


def test_core_and_sealing_load_without_django() -> None:
    program = (
        "import sys, agentstate.core.ids, agentstate.core.canonical, agentstate.core.failpoints, "
        "agentstate.core.limits, agentstate.core.clock, agentstate.crypto.sealing; "
        "sys.exit('django' in sys.modules or 'celery' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
