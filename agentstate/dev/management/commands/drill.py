"""The chaos drill: worlds of real processes in which everything dies, judged by the other side's ledger."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agentstate.dev import templates
from agentstate.dev.drill import launch, plans, tables
from agentstate.dev.drill.launch import Order, Report

TRIES = 3
SEEDS = templates.CHECKOUT / "tests" / "chaos" / "seeds.txt"


class Command(BaseCommand):
    help = "Kill workers, databases and messages at every failpoint; exit non-zero when a promise broke."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seed", type=int, help="one world of cases drawn by this seed, the same every time")
        parser.add_argument("--seeds", action="store_true", help="all seeds of tests/chaos/seeds.txt")
        parser.add_argument("--count", type=int, default=60, help="cases of a seed (default 60)")
        parser.add_argument("--mutants", action="store_true", help="eleven broken runtimes; each must be caught")
        parser.add_argument(
            "--only", default="", help="kill, stop, zombie, group, postgres, reply, flush or others; a mutant"
        )
        parser.add_argument("--every", type=int, default=1, help="of the matrix only every n-th case")
        parser.add_argument("--seconds", type=float, default=900.0, help="per world: no further wave after it")
        parser.add_argument("--shards", type=int, default=1, help="worlds per kind of death")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["mutants"]:
            sys.exit(self._mutants(options["only"]))
        seeds = plans.kept_seeds(SEEDS.read_text()) if options["seeds"] else []
        seeds += [options["seed"]] if options["seed"] is not None else []
        if seeds:
            orders = {f"seed {seed}": self._seed(seed, options) for seed in seeds}
        else:
            every = plans.whole(every=options["every"], seconds=options["seconds"])
            orders = {name: order for name, order in every.items() if options["only"] in ("", name)}
        sys.exit(self._drill(orders, shards=options["shards"]))

    def _seed(self, seed: int, options: dict[str, Any]) -> Order:
        return plans.seed(seed, count=options["count"], seconds=options["seconds"])

    def _drill(self, orders: dict[str, Order], *, shards: int) -> int:
        whole = Report()
        for name, order in orders.items():
            for part in launch.in_shards(order, shards):
                report = launch.run(part)
                self.stdout.write(f"{name}: {tables.summary(report)}")
                self.stdout.flush()
                whole.add(report)
        self.stdout.write("\n" + tables.by_failpoint(whole) + "\n\n" + tables.summary(whole))
        self.stdout.write(f"no run died at: {', '.join(tables.untouched(whole)) or 'every failpoint was met'}")
        return 0 if whole.is_clean else 1

    def _mutants(self, only: str) -> int:
        reports = {"none": launch.run(plans.control())} if not only else {}
        for name in plans.MUTANTS:
            if only in ("", name):
                reports[name] = self._try(name)
                self.stdout.write(tables.of_mutants({name: reports[name]}).splitlines()[1])
                self.stdout.flush()
        self.stdout.write("\n" + tables.of_mutants(reports))
        survivors = [name for name, report in reports.items() if name != "none" and not report.has_noticed]
        mistaken = [name for name, report in reports.items() if name == "none" and not report.is_clean]
        return 1 if survivors or mistaken else 0

    def _try(self, name: str) -> Report:
        """On a busy machine a process may die elsewhere than it should; what is noticed once is noticed."""
        for _ in range(TRIES):
            report = launch.run(plans.mutant(name))
            if report.has_noticed:
                break
        return report
