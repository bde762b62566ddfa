"""When silence becomes proof: from these moments on no call of a lost worker can show up any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from runs.models import Step


def probe_settles_at(step: Step, *, dead_at: datetime | None) -> datetime:
    """From when on a probe's "it did not happen" is believed: no late call can show up any more.

    call_by is the last moment at which the call may have left its process; a process proven dead at dead_at sent
    nothing after that. settles_within is how long downstream may take to show what it accepted.
    """
    last_sent = step.call_by or step.started_at
    if dead_at is not None:
        last_sent = min(last_sent, dead_at)
    return last_sent + timedelta(seconds=step.settles_within_s or 0.0)


def did_not_happen_opens_at(step: Step, *, dead_at: datetime | None) -> datetime:
    """From when on a person may say "it did not happen": no call can be under way any more.

    timeout_s is the longest that a call takes. Proof of death moves the last possible send back, no more: what was
    sent before may still be acted upon by a downstream that does not care whether its caller lives.
    """
    last_sent = step.call_by or step.started_at
    if dead_at is not None:
        last_sent = min(last_sent, dead_at)
    return last_sent + timedelta(seconds=step.timeout_s or 0.0)
