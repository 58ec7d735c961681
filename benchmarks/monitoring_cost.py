"""What does it cost to watch a row, beside what users would pick instead?

    python -m benchmarks.monitoring_cost [--quick] [--json] [--keep FILE] [--page FILE]

Twenty numeric features, a score and a label; windows of 1,000 and of 10,000 rows against a
reference of 5,000. CPU seconds of the work alone: a process each, imports, loading, fitting a
reference and one window of warm-up left out. Every tool gets the same rows (their digest is
compared), one after the other, round by round; a ratio is of two tools in one round. `monitor`
alone has a broker: it is the worker that ships, with all it does.
The first run installs 4 GB of peers into .cache/peers; one that cannot be installed is skipped
aloud.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from benchmarks import peers
from benchmarks.pages import Table, write_page
from benchmarks.reporting import Spread, machine, parser, report, say, spread
from benchmarks.watched import FEATURES, save

SMALL: Final = 1_000
LARGE: Final = 10_000
ROWS: Final = 20_000
COMMAND: Final = "python -m benchmarks.monitoring_cost"
COLUMNS: Final = [
    "what",
    "us a row: 1,000",
    "10,000",
    "times Driftline: 1,000",
    "10,000",
    "wanted",
    "its",
    "does",
]
WHOLE_STAGE_TO: Final = ("nannyml_js", "nannyml_ks")  # at most 3 times, and less than once
LIMIT_SECONDS: Final = 600  # of one process: a tool that hangs is skipped
ENVIRONMENT: Final = {
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
    # Nobody is told of these runs.
    "DO_NOT_TRACK": "1",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "WHYLOGS_NO_ANALYTICS": "1",
}


class Contender(NamedTuple):
    """One way to watch the rows.

    Attributes:
        way: its name in `core_work.WAYS` or `peer_work.WAYS`.
        peer: the environment it runs in; "" is Driftline's own.
        like: the way of Driftline that does the same statistics, to which it is compared.
        small, large: windows of 1,000 and of 10,000 rows in a full round.
        caveat: what it does more or less.
        goal: Driftline should cost at most this part of it, on windows of 1,000.
    """

    way: str
    peer: str
    like: str
    small: int
    large: int
    caveat: str
    goal: float | None = None

    def micros(self, size: int) -> str:
        """Name of the figure: CPU a row on windows of so many rows."""
        return f"{self.way}, microseconds a row, windows of {size}"

    def ratio(self, size: int) -> str:
        """Name of the figure: how many times what `like` costs."""
        return f"{self.way} to {self.like}, windows of {size}"


CONTENDERS: Final = (
    Contender("counts", "", "counts", 20, 2, "values by bin; 20 features, score"),
    Contender("distances", "", "distances", 20, 2, "and Jensen-Shannon of the features, alone"),
    Contender("drift", "", "drift", 20, 2, "PSI, JS, noise, interval of PSI; 20 features, score"),
    Contender("figures", "", "figures", 20, 2, "and accuracy, log loss ... with intervals"),
    Contender(
        "shipped", "", "shipped", 20, 2, "and tests under a budget, expected loss, worst slice"
    ),
    Contender("stage", "", "stage", 20, 2, "and JSON in and out, the label join, examples"),
    Contender(
        *("monitor", "", "stage", 20, 0),
        "the stage's half of it as a worker: fetched, joined, counted, written, exactly once",
    ),
    Contender(
        "evidently",
        "evidently",
        "figures",
        2,
        1,
        "more: p-values by test, plots; one report a window",
        1 / 500,
    ),
    Contender(
        "evidently_no_figures",
        "evidently",
        "figures",
        3,
        1,
        "the same with plotting replaced by nothing, which is no option of it",
        1 / 200,
    ),
    Contender(
        "nannyml_js",
        "nannyml",
        "distances",
        20,
        2,
        "Jensen-Shannon of bins, of the features; all in one call",
        1 / 10,
    ),
    Contender("nannyml_ks", "nannyml", "drift", 20, 2, "exact KS on rows; no labels"),
    Contender(
        "whylogs",
        "whylogs",
        "counts",
        5,
        1,
        "more: types, quantiles, distinct values; less: bins of a reference; 20 features, score",
        1 / 100,
    ),
    Contender(
        "whylogs_distributions",
        "whylogs",
        "counts",
        5,
        1,
        "the same without types and distinct values, by a schema of its own",
    ),
    Contender("river_adwin", "river", "drift", 2, 0, "other statistics: change of means, by event"),
    Contender("river_kswin", "river", "drift", 1, 0, "other statistics: a KS test an event"),
)


class Answer(Struct, forbid_unknown_fields=True):
    """What a contender's process says; `cpu_seconds` by rows of a window."""

    digest: str
    version: str
    cpu_seconds: dict[int, float]


class Failed(Exception):
    """A contender could not be measured; says why."""


def measure(one: Contender, rows: Path, *, small: int, large: int) -> Answer:
    """Let it watch the first windows of the rows.

    Raises:
        Failed: its process failed, took too long, or said something else.
    """
    python = peers.python(one.peer) if one.peer else Path(sys.executable)
    module = "peer_work" if one.peer else "broker_work" if one.way == "monitor" else "core_work"
    cuts = [f"{size}x{count}" for size, count in ((SMALL, small), (LARGE, large)) if count]
    try:
        done = subprocess.run(
            [str(python), "-m", f"benchmarks.{module}", one.way, str(rows), *cuts],
            cwd=peers.ROOT,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"not done after {late.timeout:.0f} s") from None
    if done.returncode != 0:
        raise Failed(done.stderr.strip()[-300:])
    try:
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Answer, strict=False)
    except (IndexError, msgspec.DecodeError) as wrong:
        raise Failed(f"it said {done.stdout[-200:]!r}: {wrong}") from None


class Costs:
    """Microseconds of CPU a row, by contender and size of window, one a round."""

    def __init__(self) -> None:
        self._micros: dict[str, dict[int, list[float]]] = {}

    def add(self, way: str, size: int, micros: float) -> None:
        self._micros.setdefault(way, {}).setdefault(size, []).append(micros)

    def micros(self, way: str, size: int) -> Spread | None:
        found = self._micros.get(way, {}).get(size)
        return spread(found) if found else None

    def ratio(self, way: str, like: str, size: int) -> Spread | None:
        """How many times what `like` costs, in the same round.

        >>> costs = Costs()
        >>> for way, micros in (("own", 2.0), ("peer", 8.0), ("own", 4.0), ("peer", 8.0)):
        ...     costs.add(way, 1000, micros)
        >>> costs.ratio("peer", "own", 1000)
        Spread(median=3.0, low=2.0, high=4.0)
        """
        own, theirs = (self._micros.get(name, {}).get(size, []) for name in (like, way))
        ratios = [their / mine for their, mine in zip(theirs, own, strict=False)]
        return spread(ratios) if ratios else None


def run(rows: Path, digest: str, rounds: int, *, quick: bool) -> tuple[Costs, dict[str, str]]:
    """All contenders, round by round; what was measured, and the versions or why not."""
    costs, versions = Costs(), dict[str, str]()
    names = {one.peer for one in CONTENDERS if one.peer}
    absent = {name: peers.missing(name, install=not quick) for name in sorted(names)}
    out = {one.way: why for one in CONTENDERS if (why := absent.get(one.peer))}
    for number in range(rounds):
        for one in CONTENDERS:
            if one.way in out:
                continue
            small, large = (min(one.small, 10), 0) if quick else (one.small, one.large)
            try:
                said = measure(one, rows, small=small, large=large)
            except Failed as failed:
                out[one.way] = str(failed)
                continue
            if said.digest != digest:
                raise SystemExit(f"{one.way} watched other rows")
            versions[one.way] = said.version
            for size, seconds in said.cpu_seconds.items():
                count = size * {SMALL: small, LARGE: large}[size]
                costs.add(one.way, size, seconds / count * 1e6)
            say(f"round {number + 1}: {one.way}, {said.cpu_seconds}")
    for way, why in out.items():
        say(f"[bold]skipped[/bold] {way}: {why}")
        versions[way] = f"skipped: {why}"
    return costs, versions


def figures(costs: Costs, versions: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Everything by plain names."""
    found: dict[str, Any] = {"rounds": rounds, "features": FEATURES, "versions": dict(versions)}
    for one in CONTENDERS:
        for size in (SMALL, LARGE):
            if micros := costs.micros(one.way, size):
                found[one.micros(size)] = micros._asdict()
            if one.peer and (ratio := costs.ratio(one.way, one.like, size)):
                found[one.ratio(size)] = ratio._asdict()
    for whole in ("stage", "monitor"):
        for peer in WHOLE_STAGE_TO:
            if ratio := costs.ratio(whole, peer, SMALL):
                found[f"{whole} to {peer}, windows of {SMALL}"] = ratio._asdict()
    return found


def table(found: Mapping[str, Any]) -> Table:
    """What `figures` found, for a person; so a page can be made again from what was kept."""
    rows = []
    for one in CONTENDERS:
        row = [f"{one.peer} {found['versions'][one.way]}: {one.way}" if one.peer else one.way]
        for name in (one.micros, one.ratio):
            for size in (SMALL, LARGE):
                known = found.get(name(size))
                row.append(_shown(Spread(**known)) if known else "-")
        row.append(f"{1 / one.goal:,.0f}" if one.goal else "-")
        rows.append([*row, one.like if one.peer else "", one.caveat])
    return Table(
        f"CPU to watch a row of {found['features']} features, {found['rounds']} rounds",
        COLUMNS,
        rows,
    )


def _shown(figure: Spread) -> str:
    """Three digits are all that repeats."""
    return f"{figure:,.0f}" if figure.median >= 100 else f"{figure:,.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    taking = parser(__doc__ or "")
    taking.add_argument("--rounds", type=int, default=3)
    taking.add_argument("--keep", type=Path, help="write the figures to this file, too")
    taking.add_argument("--page", type=Path, help="put the table in this page, too")
    options = taking.parse_args(arguments)
    rounds = 1 if options.quick else options.rounds
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        digest = save(rows, ROWS)
        costs, versions = run(rows, digest, rounds, quick=options.quick)
    found = figures(costs, versions, rounds)
    shown = table(found)
    if options.keep:
        day = datetime.now(UTC).date().isoformat()
        kept = {"date": day, "command": COMMAND, **found, "machine": machine()}
        options.keep.write_text(json.dumps(kept, indent=1) + "\n")
    if options.page:
        write_page(options.page, [shown], COMMAND)
    report(shown.title, shown.columns, shown.rows, found, as_json=options.json)


if __name__ == "__main__":
    main()
