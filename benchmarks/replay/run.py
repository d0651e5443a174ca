"""How long does `rules replay` take over 100,000 received series, and how much memory?

    python -m benchmarks.replay.run [--series 100000]

Fills SQLite and a private PostgreSQL with a synthetic past, headers of about 150 attributes a series, and runs the
command itself over a tenth of it and over all of it, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from typer.testing import CliRunner

from benchmarks.replay.past import MINUTES_A_STUDY, NEWEST, fill
from dicomnode.adapters.db.migration import migrate
from dicomnode.adapters.db.repositories import open_state
from dicomnode.adapters.db.tables import StudyRow
from dicomnode.adapters.queue import DbosQueue
from dicomnode.cli import rules
from dicomnode.cli.context import Context
from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.rules import rule_document
from tests.database_fixtures import PostgreSql, postgresql_missing

# The rule in force, and a draft of it: of one series alone, and with the whole study
RULE = """
name: torso
when:
  all:
    - Modality: CT
    - ImageType: {contains: AXIAL}
    - SliceThickness: {at_most: 5}
    - BodyPartExamined: [CHEST, ABDOMEN]
    - IsAVolume: true
    - not: {SeriesDescription: {matches: "(?i)mpr|topogram"}}
    - NumberOfInstances: {at_least: 10}
model: torso-ct
"""
DRAFTS = {
    "series": RULE.replace("at_most: 5}", "at_most: 3}").replace("[CHEST, ABDOMEN]", "[CHEST, HEAD]"),
    "study": RULE + "choose: [thinnest_slices, {kernel: [Br40f]}]\nstudy: {has_not: [{Modality: PT}]}\n",
}


def replay(url: str, draft: str, since: str) -> dict[str, Any]:
    """In this process: the command, its seconds and the process' peak memory."""
    context = Context()
    context.__dict__["state"] = open_state(url, DbosQueue(url))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draft.yaml"
        file.write_text(DRAFTS[draft], encoding="utf-8")
        words = ["replay", "torso", "--draft", str(file), "--since", since, "--json"]
        before = _peak_mb()
        begin, cpu = time.perf_counter(), time.process_time()
        result = CliRunner().invoke(rules.app, words, obj=context)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    if result.exit_code:
        raise SystemExit(f"{result.output}\n{result.exception!r}")
    told = json.loads(result.output)
    counts = {change: count for change, count in told["counts"].items() if count}
    return {
        "series": told["series"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "counts": counts,
    }


def _peak_mb() -> int:
    """Of this process; getrusage would tell its parent's where that was larger."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024)


def measured(url: str, draft: str, since: str) -> dict[str, Any]:
    """In a process of its own, so that peaks do not add up."""
    words = [sys.executable, "-m", "benchmarks.replay.run", "--url", url, "--draft", draft, "--since", since]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def databases(folder: Path) -> Iterator[Iterator[tuple[str, str]]]:
    """Names and URLs of empty databases, one after the other."""
    if reason := postgresql_missing():
        print(f"without PostgreSQL: {reason}")
        yield iter([("SQLite", f"sqlite:///{folder / 'past.db'}")])
        return
    with PostgreSql() as server:
        yield iter([("SQLite", f"sqlite:///{folder / 'past.db'}"), ("PostgreSQL", server.create())])


def prepare(url: str, series: int) -> str:
    """Fills the database; the moment since which a tenth of the series came."""
    migrate(url)
    with open_state(url, DbosQueue(url)) as state:
        begin = time.perf_counter()
        fill(state.engine, series)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rule.yaml"
            file.write_text(RULE, encoding="utf-8")
            (rule,) = read_rules(file)
        state.add_rule(rule.name, rule_document(rule), author="benchmark")
        with state.engine.begin() as connection:
            studies = connection.scalar(sa.select(sa.func.count()).select_from(StudyRow)) or 0
        print(f"  filled in {time.perf_counter() - begin:.0f} s: {series} series of {studies} studies", flush=True)
    return (NEWEST - timedelta(minutes=MINUTES_A_STUDY * (studies // 10))).isoformat()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--draft", choices=DRAFTS, default="series", help=argparse.SUPPRESS)
    parser.add_argument("--since", default="all", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.url:
        print(json.dumps(replay(arguments.url, arguments.draft, arguments.since)))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}")
    results = []
    with tempfile.TemporaryDirectory(prefix="dicomnode-replay-") as folder, databases(Path(folder)) as found:
        for name, url in found:
            print(name, flush=True)
            tenth = prepare(url, arguments.series)
            for draft in DRAFTS:
                for since in (tenth, "all"):
                    one = {"database": name, "draft": draft} | measured(url, draft, since)
                    results.append(one)
                    print(_line(one), flush=True)
    print(json.dumps(results))


def _line(one: dict[str, Any]) -> str:
    rate = one["series"] / one["seconds"]
    return (
        f"  {one['draft']:7} {one['series']:7} series {one['seconds']:6.2f} s ({one['cpu_seconds']:.2f} s CPU here), "
        f"{rate:.0f} series/s, "
        f"peak {one['peak_mb']} MB ({one['before_mb']} MB before)  {one['counts']}"
    )


if __name__ == "__main__":
    main()
