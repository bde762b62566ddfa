"""Admission: the run is durable before any answer, and the same external_id is the same run."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema
from django.db.models import Q

from agentstate.audit import trail
from agentstate.core import canonical
from agentstate.core.errors import Conflict, Invalid
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import new_id, public_id
from agentstate.core.limits import EXTERNAL_ID_CHARS_MAX, NAME_CHARS_MAX, TAG_CHARS_MAX, TAGS_MAX
from agentstate.db import locks, sql, wake
from agentstate.sdk import window
from agentstate.sdk.store import Budget
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import scope_of, tenant_scope
from checkpoints import keys
from runs import sealing
from runs.models import AdmissionKey, Run
from runs.services import control, registry, status
from runs.services.registry import Declared
from runs.states import RUN_LIVE, RunStatus

register("admit.committed", "the run's row / the hint to look at it")

_MADE = ("created_at", "due_at", "audit_head")  # by the statement itself
_GIVEN = [field.attname for field in Run._meta.concrete_fields if field.attname not in _MADE]
_INSERT_RUN = f"""INSERT INTO runs_run ({", ".join([*_GIVEN, *_MADE])})
  VALUES ({", ".join(["%s"] * len(_GIVEN))}, statement_timestamp(), statement_timestamp(), {trail.FIRST})
  RETURNING {", ".join(_MADE)}"""
_TAG = "INSERT INTO runs_tag (tag, run_id) VALUES (%s, %s)"
_ADMISSION_KEY = "INSERT INTO runs_admissionkey (key, body_hash, run_id, created_at) VALUES (%s, %s, %s, now())"


@dataclass(frozen=True, slots=True)
class Admission:
    """Everything a caller may say about a new run."""

    agent: str
    input: Any = None
    external_id: str = ""
    session: str = ""
    session_policy: str = "reject"  # reject | queue | replace
    tags: Sequence[str] = ()
    budget: Budget | None = None
    context_budget_tokens: int | None = None
    idempotency_key: str = ""
    trace_id: str = ""


def admit(wanted: Admission, *, actor: Actor) -> tuple[Run, bool]:
    """The run and whether it is new. Raises: Forbidden, NotFound (agent), Invalid (field), TooLarge, Conflict.

    Idempotent by external_id, and by idempotency_key with the same body. Locks: session, external id.
    """
    actors.require(actor, "runs.start")
    plain = _checked(wanted)
    tenant_id = actors.tenant_of(actor)
    version = registry.declared(tenant_id, wanted.agent)
    _check_input(version, wanted.input)
    if not (wanted.external_id or wanted.idempotency_key or wanted.session):  # nobody to wait for, nothing to look up
        run = _create(wanted, plain, version, actor=actor)
        _wake(run)
    else:
        with tenant_scope(tenant_id, durable=True):
            _hold_names(wanted)
            found = _existing(wanted, plain)
            if found is not None:
                return found, False
            run = _create(wanted, plain, version, actor=actor, held=_make_room(wanted, actor=actor))
            _wake(run)
    hit("admit.committed")
    return run, True


def _checked(wanted: Admission) -> bytes:
    """The canonical input. Raises: Invalid, TooLarge."""
    for field, text, most in (
        ("agent", wanted.agent, NAME_CHARS_MAX),
        ("external_id", wanted.external_id, EXTERNAL_ID_CHARS_MAX),
        ("session", wanted.session, NAME_CHARS_MAX),
        ("idempotency_key", wanted.idempotency_key, NAME_CHARS_MAX),
    ):
        canonical.check(text, where=f"/{field}")
        if len(text) > most:
            raise Invalid(f"{field} has {len(text)} characters; at most {most} are kept.", field=f"/{field}")
    _check_tags(wanted.tags)
    _check_budget(wanted.budget)
    window.check_budget(wanted.context_budget_tokens)
    if wanted.session_policy not in ("reject", "queue", "replace"):
        raise Invalid("session_policy is one of reject, queue, replace.", field="/session_policy")
    canonical.check(wanted.input, where="/input")
    return sealing.canonical_payload(wanted.input, what="input")


def _check_tags(tags: Sequence[str]) -> None:
    if len(tags) > TAGS_MAX:
        raise Invalid(f"A run has at most {TAGS_MAX} tags.", field="/tags")
    for position, tag in enumerate(tags):
        canonical.check(tag, where=f"/tags/{position}")
        if not tag.strip() or len(tag) > TAG_CHARS_MAX:
            raise Invalid(f"A tag is text of 1 to {TAG_CHARS_MAX} characters.", field=f"/tags/{position}")


def _check_budget(budget: Budget | None) -> None:
    for name in ("steps", "tokens", "cost", "wall_s"):
        cap = getattr(budget, name, None)
        if cap is not None and not 0 < cap < 2**53:
            raise Invalid(f"A budget of {name} is a number above 0.", field=f"/budget/{name}")


def _check_input(version: Declared, given: Any) -> None:
    if not version.input_schema:
        return
    errors = jsonschema.Draft202012Validator(version.input_schema).iter_errors(given)
    first = next(iter(errors), None)
    if first is not None:
        field = "/input" + "".join(f"/{part}" for part in first.absolute_path)
        raise Invalid(f"{field}: {first.message[:300]}. Agent {version.agent} declares this input.", field=field)


def _hold_names(wanted: Admission) -> None:
    """Two admissions under one name wait for each other, so that the second sees the first's row."""
    if wanted.external_id:
        locks.hold("admit.external_id", wanted.external_id)
    if wanted.idempotency_key:
        locks.hold("admit.idempotency_key", wanted.idempotency_key)
    if wanted.session:
        locks.hold("admit.session", wanted.session)


def _existing(wanted: Admission, plain: bytes) -> Run | None:
    if wanted.external_id:
        found = Run.objects.filter(external_id=wanted.external_id).first()
        if found is not None:
            return found
    if not wanted.idempotency_key:
        return None
    seen = AdmissionKey.objects.filter(key=wanted.idempotency_key).first()
    if seen is None:
        return None
    if bytes(seen.body_hash) != _body_hash(wanted, plain):
        raise Conflict(
            "This Idempotency-Key came before with another body. Use a new key for another run.",
            run=public_id("run", seen.run_id),
        )
    return Run.objects.get(id=seen.run_id)


def _body_hash(wanted: Admission, plain: bytes) -> bytes:
    return canonical.digest(
        [wanted.agent, canonical.sha(plain).hex(), wanted.external_id, wanted.session, list(wanted.tags)]
    )


def _create(wanted: Admission, plain: bytes, version: Declared, *, actor: Actor, held: bool = False) -> Run:
    """All rows of a new run in one round trip: one transaction, or part of the open one."""
    tenant_id = actors.tenant_of(actor)
    budget = wanted.budget or Budget()
    run = Run(
        id=new_id(),
        tenant_id=tenant_id,
        agent=wanted.agent,
        mode=version.mode,
        external_id=wanted.external_id or None,
        session_key=wanted.session,
        held=held,
        tags=sorted(set(wanted.tags)),
        trace_id=wanted.trace_id or secrets.token_hex(16),
        started_by_kind=actor.kind,
        started_by_id=actor.id,
        started_by_name=actor.name,
        budget_steps=budget.steps,
        budget_tokens=budget.tokens,
        budget_cost=budget.cost,
        budget_wall_s=budget.wall_s,
        context_budget_tokens=wanted.context_budget_tokens,
        event_seq=1,
        audit_seq=1,
    )
    key, key_row = keys.new(tenant_id, run.id)
    run.input = sealing.seal_run(key, tenant_id, run.id, "input", plain)
    rows = [scope_of(tenant_id), key_row, _run_row(run, actor=actor), status.first_event(run, actor=actor)]
    rows += [(_TAG, [tag, run.id]) for tag in run.tags]
    if wanted.idempotency_key:
        rows.append((_ADMISSION_KEY, [wanted.idempotency_key, _body_hash(wanted, plain), run.id]))
    inserted = sql.together(*rows)[2]
    run.created_at, run.due_at, run.audit_head = inserted[0]
    return run


def _run_row(run: Run, *, actor: Actor) -> sql.Query:
    detail = {"agent": run.agent, "held": run.held}
    entry = trail.first(run, action="run.admitted", actor=actor, detail=detail, tenant_id=run.tenant_id)
    return _INSERT_RUN, [*[getattr(run, name) for name in _GIVEN], *entry]


def _wake(run: Run) -> None:
    if not run.held:
        wake.wake(run.tenant_id, run.id)


def _make_room(wanted: Admission, *, actor: Actor) -> bool:
    """One live run per session. True: the new run waits behind the live one. Raises: Conflict naming the live run."""
    if not wanted.session:
        return False
    live = Run.objects.filter(Q(status__in=sorted(RUN_LIVE)), session_key=wanted.session, held=False).first()
    if live is None:
        return False
    if wanted.session_policy == "reject":
        raise Conflict(
            f"Session {wanted.session} has a live run, {public_id('run', live.id)} ({live.status}). "
            'Wait for it, or send session_policy "queue" or "replace".',
            run=public_id("run", live.id),
            status=live.status,
        )
    if wanted.session_policy == "replace":
        ended = control.cancel_in_scope(
            live.id, actor=actor, reason=f"replaced by a new run of session {wanted.session}"
        )
        return ended.status != RunStatus.CANCELLED
    return True
