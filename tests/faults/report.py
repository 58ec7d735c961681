"""Running rows from the command line, and the table in docs/faults.md.

`python -m tests.faults` runs every row; `--only ID` (again for more), `--quick`. `--unprotected`
runs them with their protection removed instead, and says what was seen. `--report` writes what was
found into docs/faults.md; lines of rows that did not run stay.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stream.settings import Settings
from tests.broker import Broker
from tests.faults.rows import Row
from tests.faults.sabotage import SABOTAGES
from tests.faults.table import BY_ID, ROWS
from tests.faults.world import Outcome, Unable, World

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
SEED = 7
HEAD = """# Faults: what was done, and what was found

Written by `python -m tests.faults --report` and `python -m tests.faults --unprotected --report`;
the rows are in `tests/faults/`. Every row runs real processes on a real broker, on topics of its
own. `make test-faults` runs them all, with their protections and without; `make test` the quick
ones. Lost and doubled are counted against what the producers sent. "fold" says whether summaries,
examples, measurements and commands are those of an offline fold of the log
(`tests/kafka/oracle.py`); in rows of the trainer, whether `lifecycle` tells the registry's history.
"""
FIGURES = """
## Rows

| row | what was done | what must hold | faults | events | lost | doubled | fold | seconds | seen |
|---|---|---|---:|---:|---:|---:|---|---:|---|
"""
PROTECTIONS_TITLE = "## Protections, and what happened without them"
PROTECTIONS = f"""
{PROTECTIONS_TITLE}

| row | kept by | removed | then |
|---|---|---|---|
"""
BY_HAND = "## Beside the table"  # from here on the page is written by hand


@dataclass(frozen=True)
class Result:
    """An outcome, or the error that the row ended with."""

    row: Row
    seconds: float
    outcome: Outcome | None = None
    error: str = ""

    @property
    def holds(self) -> bool:
        return self.outcome is not None and self.outcome.holds

    @property
    def found(self) -> str:
        """One line: what was found."""
        if self.outcome is None:
            return self.error
        one = self.outcome
        return f"{one.lost:,} lost, {one.doubled:,} doubled, fold {_short(one.fold)}"


def settings_for(broker: Broker, prefix: str, directory: Path) -> Settings:
    return Settings(
        bootstrap_servers=broker.bootstrap,
        topic_prefix=prefix,
        registry_url=f"sqlite:///{directory}/registry.db",
        artefact_url=f"file:{directory}/artefacts",
        session_timeout_seconds=6,
    )


def perform(
    row: Row, broker: Broker, settings: Settings, directory: Path, *, seed: int, sabotage: str = ""
) -> Result:
    """Run one row in a world of its own; with a protection removed, if one is named.

    Raises:
        Unable: not on this machine.
    """
    program = ("-m", "tests.faults.sabotage", sabotage) if sabotage else ("-m",)
    begun = time.monotonic()
    world = World(broker, settings, directory, seed=seed, program=program)
    try:
        outcome = row.run(world)
    except Unable:
        raise
    except Exception as error:
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        told = f"{kind}{error}".replace(f"{directory}/", "")
        return Result(row, time.monotonic() - begun, error=told)
    finally:
        world.close()
    return Result(row, time.monotonic() - begun, outcome)


@contextmanager
def broker_for(row: Row, shared: Broker, directory: Path) -> Iterator[Broker]:
    if not row.own_broker:
        yield shared
        return
    with Broker(directory / "broker") as own:
        yield own


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no process behind
    for name in [name for name in os.environ if name.startswith("DRIFTLINE_")]:
        del os.environ[name]
    rows = [BY_ID[id_] for id_ in options.only] if options.only else list(ROWS)
    rows = [row for row in rows if not (options.quick and row.long)]
    if options.unprotected:
        rows = [row for row in rows if row.sabotage]
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="driftline-faults-") as folder,
        Broker(Path(folder) / "broker") as broker,
    ):
        for row in rows:
            results.append(_one(row, broker, Path(folder), options))
            if options.report:
                write(results, unprotected=options.unprotected)
    odd = [result.row.id for result in results if result.holds == options.unprotected]
    print(f"not as it should be: {', '.join(odd)}" if odd else "all as it should be")
    return 1 if odd else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BY_ID), metavar="ID")
    parser.add_argument("--quick", action="store_true", help="only the rows of `make test`")
    parser.add_argument("--unprotected", action="store_true", help="see them fail")
    parser.add_argument("--report", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--logs", type=Path, help="keep each row's folder below this one")
    return parser.parse_args()


def _one(row: Row, shared: Broker, folder: Path, options: argparse.Namespace) -> Result:
    directory = (options.logs or folder) / row.id
    directory.mkdir(parents=True)
    sabotage = row.sabotage if options.unprotected else ""
    print(f"{row.id}{f' ({sabotage})' if sabotage else ''}: {row.done}", flush=True)
    with broker_for(row, shared, directory) as broker:
        settings = settings_for(broker, f"faults-{row.id}", directory)
        try:
            result = perform(row, broker, settings, directory, seed=options.seed, sabotage=sabotage)
        except Unable as lacking:
            result = Result(row, 0.0, error=f"not possible here: {lacking}")
    note = result.outcome.note if result.outcome else ""
    faults = result.outcome.faults if result.outcome else "?"
    print(f"    {faults} faults, {result.found} ({note}) {result.seconds:.0f} s", flush=True)
    return result


# The page:


def write(results: list[Result], *, unprotected: bool) -> None:
    """Put the results into the page; other lines stay as they are."""
    before = PAGE.read_text() if PAGE.exists() else ""
    before, _, by_hand = before.partition(BY_HAND)
    figures_before, _, protections_before = before.partition(PROTECTIONS_TITLE)
    figures, protections = _lines(figures_before), _lines(protections_before)
    for result in results:
        if unprotected:
            protections[result.row.id] = _protection(result.row, result.found)
        else:
            figures[result.row.id] = _figure(result)
    for row in ROWS:
        if not row.sabotage:
            protections[row.id] = _protection(row, "")
    known = [row.id for row in ROWS]
    text = [HEAD, FIGURES, *(figures[id_] for id_ in known if id_ in figures), PROTECTIONS]
    text += [protections[id_] for id_ in known if id_ in protections]
    PAGE.write_text("".join([*text, f"\n{BY_HAND}{by_hand}" if by_hand else ""]))


def _lines(text: str) -> dict[str, str]:
    return {found[1]: found[0] for found in re.finditer(r"^\| `([\w-]+)` \|.*\n", text, re.M)}


def _figure(result: Result) -> str:
    row, one = result.row, result.outcome
    start = f"| `{row.id}` | {row.done} | {row.invariant} |"
    if one is None:
        return f"{start} | | | | FAILED | {result.seconds:.0f} | {_short(result.error)} |\n"
    figures = f" {one.faults} | {one.events:,} | {one.lost} | {one.doubled} | {_short(one.fold)} |"
    return f"{start}{figures} {result.seconds:.0f} | {_short(one.note)} |\n"


def _protection(row: Row, found: str) -> str:
    removed = SABOTAGES[row.sabotage][1] if row.sabotage else ""
    return f"| `{row.id}` | {row.kept_by} | {removed} | {_short(found) or row.seen} |\n"


def _short(text: str) -> str:
    """One cell of the table."""
    one_line = " ".join(text.split()).replace("|", "/")
    return one_line if len(one_line) <= 160 else one_line[:157] + "..."
