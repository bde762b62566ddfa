"""How a call is carried out, the same for HTTP and SMTP: written down, perhaps delayed, done, answered, perhaps not.

| dies after | the ledger shows | what is true |
|---|---|---|
| nothing yet | nothing | the call never arrived |
| accepted | accepted | nothing happened |
| acted | accepted, acted | it happened once; the caller may not know |
| replied | all three | it happened once and the answer was sent |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from agentstate.dev.sandbox.behaviour import Behaviour, Switches
from agentstate.dev.sandbox.ledger import Call, Json, Ledger, payload_digest
from agentstate.dev.sandbox.shop import Denied, Shop

LOCKS = 64


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Json
    deduped: bool = False
    lost: bool = False  # the connection is reset in place of an answer


@dataclass(frozen=True, slots=True)
class Known:
    """What a probe is told about a key."""

    state: Literal["happened", "not_happened", "off", "failing"]
    result: Json = None


class Desk:
    """Takes calls in. Safe to use from many threads at once."""

    def __init__(self, ledger: Ledger, behaviour: Behaviour) -> None:
        self.ledger = ledger
        self.behaviour = behaviour
        self.shop = Shop(ledger)
        self._keys_busy = tuple(threading.Lock() for _ in range(LOCKS))

    def take(self, call: Call, *, hang_up: Callable[[], None]) -> tuple[Call, Answer]:
        """Carry out one call; `hang_up` resets the caller's connection and may be called before the act.

        Raises: LedgerFull; then nothing has happened.
        """
        call = self.ledger.accept(call)
        switches = self.behaviour.take(call.tool)
        if switches.drop_early:
            hang_up()
        time.sleep(switches.act_delay_s)
        answer = self._carry_out(call, switches)
        time.sleep(switches.reply_delay_s)
        if switches.drop_reply and not switches.drop_early:
            hang_up()
        lost = switches.drop_early or switches.drop_reply
        return call, Answer(answer.status, answer.body, answer.deduped, lost)

    def replied(self, call: Call, answer: Answer, *, sent: bool) -> None:
        note = "deduped" if answer.deduped else ""
        self.ledger.reply(call, status=answer.status, note=note if sent and not answer.lost else f"{note} lost".strip())

    def known(self, tool: str, key: str) -> Known:
        """What a probe by key is told; what it says counts only for this moment."""
        probe = self.behaviour.peek(tool).probe
        if probe != "on":
            return Known("off" if probe == "off" else "failing")
        line = self.ledger.newest_act(tool, key)
        return Known("happened", line["result"]) if line else Known("not_happened")

    def slow_read(self, tool: str) -> int:
        """Reads obey delay, refuse and fail too. Gives the error status to answer with, or 0."""
        switches = self.behaviour.take(tool)
        time.sleep(switches.act_delay_s + switches.reply_delay_s)
        return switches.refuse or switches.fail

    def reset(self) -> None:
        self.behaviour.clear()
        self.ledger.clear()

    def _carry_out(self, call: Call, switches: Switches) -> Answer:
        if switches.refuse:
            return Answer(switches.refuse, {"error": "Refused: this switch of the sandbox is on."})
        if switches.fail:
            return Answer(switches.fail, {"error": "Failed before acting: this switch of the sandbox is on."})
        with self._one_at_a_time(call, switches):
            answer = self._earlier(call, switches) or self._act(call)
        if switches.fail_after and answer.status < 400:
            return Answer(switches.fail_after, {"error": "Failed after acting: this switch of the sandbox is on."})
        return answer

    def _act(self, call: Call) -> Answer:
        try:
            return Answer(201, self.ledger.act(call, lambda: self.shop.act(call)))
        except Denied as no:
            return Answer(no.status, {"error": str(no)})

    def _earlier(self, call: Call, switches: Switches) -> Answer | None:
        if not switches.dedupe:
            return None
        line = self.ledger.newest_act(call.tool, call.key, within_s=switches.dedupe_window_s)
        if line is None:
            return None
        if line["payload_sha"] != payload_digest(call.payload):
            return Answer(422, {"error": "This key was used with another payload."})
        return Answer(200, line["result"], deduped=True)

    @contextmanager
    def _one_at_a_time(self, call: Call, switches: Switches) -> Iterator[None]:
        """Two calls with one key: the second waits for the first, else both would find no earlier act."""
        if not (switches.dedupe and call.key):
            yield
            return
        with self._keys_busy[hash((call.tool, call.key)) % LOCKS]:
            yield
