"""kill -9 of the sandbox: the ledger stays whole and tells the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentstate.dev.sandbox import ledger
from agentstate.dev.sandbox.client import Sandbox
from tests.sandbox.conftest import Caller


def test_a_kill_in_mid_act_shows_accepted_without_acted(mortal: Sandbox) -> None:
    mortal.behave("refund.create", act_delay_s=30)
    caller = Caller(mortal)
    answer = caller.later("refund.create", "k1")
    mortal.wait_for("accepted", "refund.create", "k1")
    mortal.kill()
    assert isinstance(answer.exception(), Exception)
    (call,) = mortal.calls("refund.create")
    assert (call.phases, call.acted) == (["accepted"], False)


def test_after_a_kill_balances_switches_and_attempts_are_as_before(mortal: Sandbox) -> None:
    caller = Caller(mortal)
    assert caller.refund("k1", "4467", "80.50").status_code == 201
    mortal.behave("refund.create", dedupe=True)
    mortal.kill()
    mortal.run()
    assert mortal.get("/orders/4467")["balance"] == "190.25"
    assert caller.refund("k1", "4467", "80.50").headers["Idempotent-Replayed"] == "true"
    assert [call.attempt for call in mortal.calls("refund.create", "k1")] == [1, 2]
    assert len(mortal.acts("refund.create")) == 1


def test_a_kill_while_calls_pour_in_leaves_whole_lines_and_answered_calls_acted(mortal: Sandbox) -> None:
    caller = Caller(mortal)
    answers = [caller.later("crane.lift", f"k{n}") for n in range(200)]
    mortal.wait_for("replied", "crane.lift", count=20)
    mortal.kill()
    answered = {a.result().json()["key"] for a in answers if a.exception() is None}
    assert answered <= {call.key for call in mortal.acts("crane.lift")}
    assert len(answered) >= 19
    mortal.run()
    numbers = [line["n"] for line in mortal.ledger()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_half_written_last_line_did_not_happen(mortal: Sandbox) -> None:
    caller = Caller(mortal)
    caller.call("crane.lift", "k1")
    mortal.wait_for("replied", "crane.lift")
    mortal.kill()
    with (mortal.folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"n": 4, "phase": "acted", "tool": "crane')
    mortal.run()
    assert caller.call("crane.lift", "k2").status_code == 201
    assert [call.key for call in mortal.acts()] == ["k1", "k2"]


def test_the_accepted_line_is_on_disk_before_the_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches the calls to the operating system: write, fsync, then decide, then write, fsync."""
    seen: list[str] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def noted(*args: object) -> object:
            seen.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, noted)

    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    watch("write")
    watch("fsync")
    call = book.accept(ledger.Call("crane.lift", "k1", {}))
    book.act(call, lambda: seen.append("decide"))
    assert seen == ["write", "fsync", "decide", "write", "fsync"]


def test_a_full_disk_refuses_the_call_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    book.accept(ledger.Call("crane.lift", "k1", {}))
    real = os.write

    def half(file: int, line: bytes) -> int:
        real(file, bytes(line)[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(ledger.LedgerFull, match="No space left"):
            book.accept(ledger.Call("crane.lift", "k2", {}))
    book.accept(ledger.Call("crane.lift", "k3", {}))
    assert [line["key"] for line in ledger.read(tmp_path / "ledger.jsonl")] == ["k1", "k3"]
    assert [line["key"] for line in ledger.Ledger(tmp_path / "ledger.jsonl").lines] == ["k1", "k3"]


def test_a_full_ledger_refuses_further_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LINES_MAX", 1)
    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    book.accept(ledger.Call("crane.lift", "k1", {}))
    with pytest.raises(ledger.LedgerFull, match="POST /reset"):
        book.accept(ledger.Call("crane.lift", "k2", {}))


def test_a_second_sandbox_in_the_same_folder_is_refused_with_a_sentence(mortal: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="Another sandbox uses"):
        Sandbox.start(mortal.folder)
    assert mortal.get("/healthz")["ok"]


def test_a_port_in_use_is_refused_with_a_sentence(mortal: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Cannot listen on port"):
        Sandbox.start(tmp_path / "other", port=mortal.port)


def test_sigterm_ends_it_at_once_although_a_call_is_slow(mortal: Sandbox) -> None:
    mortal.behave("crane.lift", act_delay_s=300)
    Caller(mortal).later("crane.lift", "k1")
    mortal.wait_for("accepted", "crane.lift")
    subprocess.run(["kill", "-TERM", str(mortal.pid)], check=True)
    assert mortal.wait_ended(s=5) == 0


def test_the_module_says_how_it_is_started() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "agentstate.dev.sandbox", "--help"], capture_output=True, text=True, check=True
    )
    assert "--smtp-port" in asked.stdout
