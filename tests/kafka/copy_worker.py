"""A worker whose processor only copies and counts: `python -m tests.kafka.copy_worker <stage>`.

Each output carries the count that the state had reached, so that a state which lost or doubled a
record shows in the outputs, whatever the offsets say.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping

from stream import settings, worker
from stream.core.processor import Batch, Context, Fleet, Output, Parts
from stream.topics import STAGES

OUTPUT = {"score": "predictions", "monitor": "summaries", "evaluate": "accuracy"}
STAGE_OF = {"requests": "score", "predictions": "monitor", "feedback": "monitor"}


class Copying:
    """Copies every record; its state is how many there were and the sum of their values."""

    generations: Mapping[str, int] = {}
    counters: Mapping[str, int] = {}

    def __init__(self, context: Context) -> None:
        self.partition = context.partition
        self.count = 0
        self.sum = 0
        self._written = ""
        self._pace = float(os.environ.get("COPY_PACE_SECONDS", "0"))

    def restore(self, parts: Mapping[str, bytes]) -> None:
        self._written = parts.get("state", b"[0, 0]").decode()  # the runtime has checked the parts
        self.count, self.sum = json.loads(self._written)

    def apply(self, batch: Batch, _: Fleet) -> list[Output]:
        outputs = []
        for record in batch.records:
            if record.value == b"poison":
                raise RuntimeError("a bug, as far as the runtime can know")
            number = int((record.value or b"").partition(b":")[0])
            self.count += 1
            self.sum += number
            value = b"%d:%d:%d" % (number, self.partition, self.count)
            entity = OUTPUT[STAGE_OF.get(batch.entity, "evaluate")]
            outputs.append(Output(entity, record.key, value, self.partition))
            time.sleep(self._pace)
        return outputs

    def advance(self, clock_ms: int, caught_up: bool, _: Fleet) -> list[Output]:
        if caught_up and os.environ.get("COPY_TELLS_CAUGHT_UP"):
            return [Output("alerts", b"caught-up", b"%d:%d" % (clock_ms, self.count), 0)]
        return []

    def changes(self, *, complete: bool) -> Parts:
        state = json.dumps([self.count, self.sum])
        if state == self._written and not complete:
            return {}
        self._written = state
        return {"state": state.encode()}


if __name__ == "__main__":
    chosen = next(stage for stage in STAGES if stage == sys.argv[1])
    raise SystemExit(worker.main(chosen, settings.load(), Copying))
