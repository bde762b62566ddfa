"""Subjects: found by the caller's own id or by another name, made at the first mention, never made twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from agentstate.audit import history, trail
from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import (
    ALIAS_CHARS_MAX,
    ALIAS_KIND_CHARS_MAX,
    ALIASES_MAX,
    EXTERNAL_ID_CHARS_MAX,
    NAME_CHARS_MAX,
    SUBJECT_CAP_BYTES_MAX,
    SUBJECT_CAP_BYTES_MIN,
)
from agentstate.db import locks
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import current_tenant
from memory import keys, sealing, texts
from memory.models import Alias, Subject
from memory.services import cap, revising, rights
from memory.states import SubjectStatus

UTF8_BYTES_PER_CHAR_MAX = 4


@dataclass(frozen=True, slots=True)
class AliasIn:
    """Another name: an address, a number, a handle."""

    kind: str  # email, phone, handle, ...
    value: str


def resolve(
    *, external_id: str | None = None, aliases: Sequence[AliasIn] = (), name: str = "", actor: Actor | None = None
) -> Subject:
    """The subject with this id or one of these aliases; made when there is none. Asserts a transaction.

    A subject that is found learns what it lacks: the external id, aliases. Two callers at once get the same row.
    Raises: Invalid; Conflict when the names belong to several subjects, or to one that is being erased.
    """
    external_id = _checked_id(external_id)
    wanted = _checked_aliases(aliases)
    if external_id is None and not wanted:
        raise Invalid("A subject is found by external_id or by an alias: give one of them.", field="external_id")
    subject = _matching(external_id, wanted)
    if subject is not None and _is_known(subject, external_id, wanted):
        return subject
    actor = actor or actors.system("memory")
    _hold(external_id, wanted)
    subject = _matching(external_id, wanted)  # afresh: somebody may have been first while we waited
    if subject is None:
        subject = _make(external_id, name, actor)
    elif subject.external_id is None and external_id is not None:
        Subject.objects.filter(id=subject.id).update(external_id=external_id)
        subject.external_id = external_id
        trail.record(subject, action="subject.identified", actor=actor)
    _add(subject, wanted, actor=actor)
    return subject


def find(*, external_id: str | None = None, aliases: Sequence[AliasIn] = ()) -> Subject | None:
    """As resolve(), but nothing is made. Raises: Invalid, Conflict."""
    return _matching(_checked_id(external_id), _checked_aliases(aliases))


def by_external_id(external_id: str) -> UUID | None:
    """Also of one that is being erased."""
    return Subject.objects.filter(external_id=external_id.replace("\0", "")).values_list("id", flat=True).first()


def get(subject_id: UUID) -> Subject:
    """Raises: NotFound."""
    subject = Subject.objects.filter(id=subject_id).first()
    if subject is None:
        raise NotFound("There is no such subject.")
    return subject


def locked(subject_id: UUID) -> Subject:
    """The row, locked for this transaction: its items may be changed. Raises: NotFound, Conflict, LockTimeout."""
    try:
        (subject,) = locks.lock_in_order(Subject(id=subject_id))
    except Subject.DoesNotExist:
        raise NotFound("There is no such subject.") from None
    _check_kept(subject)
    return subject


def rename(
    subject_id: UUID, *, name: str, expected_version: int | None = None, actor: Actor, reason: str = ""
) -> Subject:
    """Give it a display name, or none with an empty one.

    A subject's version is the number of its newest audit entry. `expected_version`: what the writer has seen, None for
    whatever stands. Idempotent. Raises: Conflict with the name that stands by now.
    """
    rights.require_writing(actor)
    name = _checked_name(name)
    subject = locked(subject_id)
    key = keys.owner_key(subject.id)
    standing = sealing.open_text(key, "memory_subject", subject.id, subject.name) if subject.name else ""
    if name == standing:
        return subject
    if expected_version not in (None, subject.audit_seq):
        raise _overtaken(subject, expected_version, {"name": standing})
    subject.name = sealing.seal_text(key, "memory_subject", subject.id, name) if name else b""
    subject.save(update_fields=["name"])
    return trail.record(subject, action="subject.renamed", actor=actor, reason=reason)


def add_alias(subject_id: UUID, alias: AliasIn, *, actor: Actor, reason: str = "") -> Alias:
    """Idempotent. Raises: Conflict when the name belongs to another subject."""
    rights.require_writing(actor)
    (wanted,) = _checked_aliases([alias])
    _hold(None, [wanted])
    subject = locked(subject_id)
    holder = Alias.objects.filter(digest=wanted.digest).first()
    if holder is not None and holder.subject_id != subject.id:
        raise Conflict(
            f"This {wanted.kind} belongs to {public_id('subject', holder.subject_id)}. Remove it there first.",
            subject=public_id("subject", holder.subject_id),
        )
    _add(subject, [wanted], actor=actor, reason=reason)
    return Alias.objects.get(digest=wanted.digest)


def remove_alias(subject_id: UUID, alias_id: UUID, *, actor: Actor, reason: str = "") -> None:
    """Idempotent."""
    rights.require_writing(actor)
    subject = locked(subject_id)
    removed, _ = Alias.objects.filter(id=alias_id, subject_id=subject.id).delete()
    if removed:
        trail.record(subject, action="subject.alias_removed", actor=actor, reason=reason)


def set_cap(
    subject_id: UUID, *, cap_bytes: int | None, expected_version: int | None = None, actor: Actor, reason: str = ""
) -> list[cap.Evicted]:
    """Its own cap, or the tenant's with None; what left recall because of it.

    Raises: Invalid, also when what is pinned alone is larger; Conflict with the cap that stands by now.
    """
    rights.require_writing(actor)
    if cap_bytes is not None and not SUBJECT_CAP_BYTES_MIN <= cap_bytes <= SUBJECT_CAP_BYTES_MAX:
        bounds = f"{SUBJECT_CAP_BYTES_MIN:,} to {SUBJECT_CAP_BYTES_MAX:,}"
        raise Invalid(f"The cap of a subject is {bounds} bytes.", field="cap_bytes")
    subject = locked(subject_id)
    if expected_version not in (None, subject.audit_seq) and cap_bytes != subject.cap_bytes:
        raise _overtaken(subject, expected_version, {"cap_bytes": subject.cap_bytes})
    subject.cap_bytes = cap_bytes
    evicted = cap.enforce(subject, key=key_of(subject), actor=actor)
    subject.save(update_fields=["cap_bytes"])
    revising.save_counts(subject)
    trail.record(subject, action="subject.cap_set", actor=actor, reason=reason, detail={"bytes": cap.of(subject)})
    return evicted


def _overtaken(subject: Subject, expected_version: int | None, theirs: dict[str, Any]) -> Conflict:
    newest = history.of("subject", subject.id).order_by("-object_seq").first()
    return Conflict(
        f"{public_id('subject', subject.id)} is at version {subject.audit_seq} by now, not {expected_version}. Read it "
        "again and bring your change over.",
        version=subject.audit_seq,
        expected=expected_version,
        theirs={**theirs, "by": newest.actor_name if newest is not None else ""},
    )


def key_of(subject: Subject) -> bytes:
    """Seals and opens what is known about it. Raises: Corrupt when it was destroyed."""
    return keys.existing(subject.id)


def name_of(subject: Subject, key: bytes | None) -> str:
    """Its display name, else the external id, else its public id. `key` None: it was erased."""
    if key is not None and subject.name:
        return sealing.open_text(key, "memory_subject", subject.id, subject.name)
    return subject.external_id or public_id("subject", subject.id)


@dataclass(frozen=True, slots=True)
class _Alias:
    kind: str
    value: str
    digest: bytes


def _checked_id(external_id: str | None) -> str | None:
    if external_id is None:
        return None
    bytes_max = EXTERNAL_ID_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX
    external_id = texts.clean(external_id, field="external_id", bytes_max=bytes_max).strip()
    if len(external_id) > EXTERNAL_ID_CHARS_MAX:
        raise Invalid(f"external_id is longer than {EXTERNAL_ID_CHARS_MAX} characters.", field="external_id")
    return external_id


def _checked_name(name: str) -> str:
    return texts.optional(name, field="name", bytes_max=NAME_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX).strip()


def _checked_aliases(aliases: Iterable[AliasIn]) -> list[_Alias]:
    """Without doubles, in the order of their digests: locks are taken in it."""
    found = {}
    for alias in aliases:
        kind = texts.clean(alias.kind, field="alias.kind", bytes_max=ALIAS_KIND_CHARS_MAX).strip().lower()
        bytes_max = ALIAS_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX
        value = texts.clean(alias.value, field="alias.value", bytes_max=bytes_max).strip()
        digest = sealing.digest("alias", kind, texts.normalised(value))
        found[digest] = _Alias(kind, value, digest)
    if len(found) > ALIASES_MAX:
        raise Invalid(f"A subject has at most {ALIASES_MAX} aliases.", field="aliases")
    return [found[digest] for digest in sorted(found)]


def _matching(external_id: str | None, wanted: Sequence[_Alias]) -> Subject | None:
    """One or two queries. Raises: Conflict."""
    subjects: dict[UUID, Subject] = {}
    if external_id is not None:
        subjects = {row.id: row for row in Subject.objects.filter(external_id=external_id)}
    if wanted:
        digests = [alias.digest for alias in wanted]
        # Index: memory_alias_digest.
        ids = Alias.objects.filter(digest__in=digests).values("subject_id")
        subjects |= {row.id: row for row in Subject.objects.filter(id__in=ids)}
    if len(subjects) > 1:
        names = sorted(public_id("subject", subject_id) for subject_id in subjects)
        raise Conflict(
            f"These names belong to {len(names)} subjects: {', '.join(names)}. Use names of one of them.",
            subjects=names,
        )
    subject = next(iter(subjects.values()), None)
    if subject is not None:
        _check_kept(subject)
        if external_id is not None and subject.external_id not in (None, external_id):
            raise Conflict(
                f"An alias given belongs to {public_id('subject', subject.id)}, which has another external_id.",
                subject=public_id("subject", subject.id),
            )
    return subject


def _check_kept(subject: Subject) -> None:
    if subject.status != SubjectStatus.ACTIVE:
        raise Conflict(
            f"{public_id('subject', subject.id)} is being erased: nothing is written about it any more.",
            status=subject.status,
        )


def _is_known(subject: Subject, external_id: str | None, wanted: Sequence[_Alias]) -> bool:
    if external_id is not None and subject.external_id is None:
        return False
    known = (
        Alias.objects.filter(subject=subject, digest__in=[alias.digest for alias in wanted]).count() if wanted else 0
    )
    return known == len(wanted)


def _hold(external_id: str | None, wanted: Sequence[_Alias]) -> None:
    """Names are held while it is decided whose they are; in one order, so that two callers cannot wait in a ring."""
    assert connection.in_atomic_block, "names are held until the transaction ends"
    parts = [("alias", alias.digest.hex()) for alias in wanted]
    parts += [("external_id", external_id)] if external_id is not None else []
    tenant_id = current_tenant()
    for part in sorted(parts, key=lambda part: locks.number("memory.subject", tenant_id, *part)):
        locks.hold("memory.subject", tenant_id, *part)


def _make(external_id: str | None, name: str, actor: Actor) -> Subject:
    name, at = _checked_name(name), now()
    subject = Subject(external_id=external_id, created_at=at, last_active_at=at)
    key = keys.owner_key(subject.id)
    if name:
        subject.name = sealing.seal_text(key, "memory_subject", subject.id, name)
    subject.save(force_insert=True)
    return trail.record(subject, action="subject.created", actor=actor)


def _add(subject: Subject, wanted: Sequence[_Alias], *, actor: Actor, reason: str = "") -> None:
    """Those it does not have. The caller holds their names."""
    if not wanted:
        return
    known = {bytes(digest) for digest in Alias.objects.filter(subject=subject).values_list("digest", flat=True)}
    missing = [alias for alias in wanted if alias.digest not in known]
    if len(known) + len(missing) > ALIASES_MAX:
        raise Invalid(f"A subject has at most {ALIASES_MAX} aliases. Remove one first.", field="aliases")
    key = keys.owner_key(subject.id)
    for alias in missing:
        row = Alias(subject=subject, kind=alias.kind, digest=alias.digest, created_at=now())
        row.value = sealing.seal_text(key, "memory_alias", row.id, alias.value)
        row.save(force_insert=True)
    if missing:
        trail.record(
            subject,
            action="subject.alias_added",
            actor=actor,
            reason=reason,
            detail={"kinds": [a.kind for a in missing]},
        )
