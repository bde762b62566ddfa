"""What a drill prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from agentstate.dev.drill import mutants
from agentstate.dev.drill.cases import DEATHS
from agentstate.dev.drill.launch import Report, Result

VIOLATIONS_SHOWN = 40


def by_failpoint(report: Report) -> str:
    """Runs that died there, by death; `!` marks violations."""
    rows: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in report.results:
        rows[result.case.failpoint or "(none)"][result.case.death].append(result)
    deaths = [death for death in DEATHS if any(death in row for row in rows.values())]
    lines = [f"{'failpoint':<18}" + "".join(f"{death:>10}" for death in [*deaths, "none"])]
    for name in sorted(rows):
        lines.append(f"{name:<18}" + "".join(f"{_cell(rows[name].get(death, [])):>10}" for death in [*deaths, "none"]))
    return "\n".join(lines)


def _cell(results: list[Result]) -> str:
    if not results:
        return "·"
    bad = sum(bool(result.violations) and not result.unfair for result in results)
    return f"{sum(result.hit for result in results)}{f' !{bad}' if bad else ''}"


def summary(report: Report) -> str:
    fair = [result for result in report.results if not result.unfair]
    doubts = sum(result.doubts for result in report.results)
    lines = [
        f"{len(report.results)} runs, {sum(result.hit for result in report.results)} met their fate,"
        f" {len(report.results) - len(fair)} not judged (this machine was too slow), {report.left_out} left out,"
        f" {doubts} settled by a person, {len(report.bad)} with a violation, {len(report.findings)} broken invariants"
    ]
    lines += [f"  {result.case}: {'; '.join(result.violations)}" for result in report.bad[:VIOLATIONS_SHOWN]]
    lines += [f"  {finding}" for finding in [*report.findings, *report.broken][:VIOLATIONS_SHOWN]]
    return "\n".join(lines)


def untouched(report: Report) -> list[str]:
    """Failpoints of driving runs that no case died at."""
    met = {result.case.failpoint for result in report.results if result.hit}
    return sorted(name for name in report.names if name not in met and not name.startswith(ELSEWHERE))


# Not on the way of a run: compaction has races and deaths of its own in tests/checkpoints.
ELSEWHERE = ("checkpoints.compact",)


def of_mutants(reports: Mapping[str, Report]) -> str:
    lines = [f"{'mutant':<24}{'noticed':<9}by"]
    for name, report in reports.items():
        first = next(iter(reasons(report)), "nothing").splitlines()[0][:100]
        lines.append(f"{name:<24}{'yes' if report.has_noticed else 'no':<9}{first}  ({mutants.MEANING[name]})")
    return "\n".join(lines)


def reasons(report: Report) -> Iterable[str]:
    for result in report.bad:
        yield f"{result.case.effect}, {result.case.death}: {result.violations[0]}"
    yield from report.findings
    yield from report.broken
