"""A row about clocks that are wrong: the stages read another time than the broker does.

libfaketime can't do it: under it (0.9.10) Python's own `time.sleep` fails with EINVAL. So the
clock is replaced where Python reads it (`tests/faults/skewed.py`); librdkafka's timers and the
broker keep the right time.
"""

from __future__ import annotations

from tests.faults.rows import EXACT, Row
from tests.faults.skewed import FILE
from tests.faults.world import Outcome, World
from tests.kafka.logs import Logs

DAY = 86_400
JUMPS = ((0.2, DAY), (0.45, 0), (0.6, -3 * 3600), (0.8, 0))  # part of the run, seconds ahead
AHEAD_MS = 60_000  # most that a watermark may be before the broker's clock


def clock_jumps(world: World) -> Outcome:
    clock = world.directory / "clock"
    clock.write_text("0")
    world.environment[FILE] = str(clock)
    world.program = ("-m", "tests.faults.skewed", *world.program[1:])
    world.begin(16_000, 50, score=2, monitor=2, evaluate=1)
    for fraction, seconds in JUMPS:
        world.at(fraction)
        clock.write_text(str(seconds))
    outcome = world.finish(len(JUMPS))
    logs = Logs(world.settings)
    stamps = [record.timestamp_ms for record in logs.of("summaries")]
    ahead = max(logs.progress(p)[-1].watermark_ms for p in logs.partitions) - max(stamps)
    assert ahead < AHEAD_MS, f"a watermark is {ahead / 1000:.0f} s ahead of the broker's clock"
    return outcome


ROWS = (
    Row(
        id="clock-jumps",
        run=clock_jumps,
        done="the wall clock of all stage processes jumps a day ahead and back, three hours back "
        "and ahead, under load",
        invariant=f"{EXACT}; no watermark runs ahead of the broker's clock",
        kept_by="time is the broker's stamp on the record; where it is idle, a clock that is read "
        "once and then paced by one that nobody sets",
        sabotage="stepping",
    ),
)
