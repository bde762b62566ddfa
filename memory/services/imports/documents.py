"""Progress documents and their versions."""

from __future__ import annotations

from collections.abc import Sequence

from agentstate.core import tokens
from agentstate.core.limits import PROGRESS_BYTES_MAX
from memory import sealing, transfer
from memory.models import Progress, ProgressVersion
from memory.services.imports.desk import Desk
from memory.services.imports.lines import Numbered, bad


def take_progress(desk: Desk, batch: Sequence[Numbered]) -> None:
    here = desk.here(Progress, batch)
    taken = set(Progress.objects.filter(key__in=[each.line.key for each in batch]).values_list("key", flat=True))
    for each in batch:
        line: transfer.ProgressLine = each.line
        if line.id in desk.seen:
            raise bad(each.number, "this document came before")
        desk.seen.add(line.id)
        desk.counted("progress", line.id not in here)
        if line.id in here:
            desk.skipped.add(line.id)
        elif line.key in taken:
            desk.skipped.add(line.id)
            desk.conflict(each, f"there is a progress document {line.key} here already.")
        else:
            fields = line.model_dump(include={"key", "agent", "version", "created_at", "updated_at"})
            row = Progress.objects.create(id=desk.row_id(line.id), subject=desk.subject, **fields)
            desk.documents[line.id] = (row, each.number)


def take_progress_version(desk: Desk, batch: Sequence[Numbered]) -> None:
    rows = []
    for each in batch:
        line: transfer.ProgressVersionLine = each.line
        if line.progress in desk.skipped:
            desk.report.known["progress_version"] += 1
            continue
        if line.progress not in desk.documents:
            raise bad(each.number, "its document did not come before it")
        document, _ = desk.documents[line.progress]
        if line.version > document.version:
            why = f"its document is at version {document.version} and cannot have a version {line.version}"
            raise bad(each.number, why)
        desk.versions[line.progress] += 1
        if len(line.body.encode()) > PROGRESS_BYTES_MAX:
            raise bad(each.number, f"a document has at most {PROGRESS_BYTES_MAX:,} bytes")
        place = f"{document.id}:{line.version}"
        desk.counted("progress_version", True)
        desk.link(line.run)
        rows.append(
            ProgressVersion(
                progress_id=document.id,
                version=line.version,
                body=sealing.seal_text(desk.key, "memory_progressversion", f"{place}:body", line.body),
                reason=desk.sealed(line.reason, "memory_progressversion", f"{place}:reason"),
                tokens=tokens.count(line.body),
                created_at=line.created_at,
                **desk.by(line.by),
            )
        )
    ProgressVersion.objects.bulk_create(rows)
