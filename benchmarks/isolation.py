"""One slow model beside ten quick ones in a partition: how long the others' requests take.

    python -m benchmarks.isolation [--quick] [--json] [--only burst,flood]

No broker. The score stage works for real: decoding, predicting, encoding, its checkpoint. Only the
slow model's estimator pretends: it sets the clock on by 5 ms a row. So the clock is this thread's
CPU time, what was pretended, and the pauses in which nothing was to be done. Requests are there
when they are due, whatever became of those before, a commit takes 5 ms, every 100 ms, and a delay
ends when the commit of the prediction does. `together` is with nothing put off, `lines` as shipped.

- `beside`: 500 quick requests a second, and 40 slow ones, a fifth of the time;
- `burst`: the same, and 2,000 slow ones at once, ten seconds of work;
- `backlog`: all of thirty seconds of `beside` is there at once, as after a stop;
- `flood`: 300 slow ones a second for a minute: one and a half times what can be done;
- `long flood`: the same for two minutes, which is more than the lines hold;
- `cheap flood`: a quick model with twenty times the requests of each other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.reporting import parser, report, say
from stream.core.processor import Batch, Context, CoreSettings, Output, Record
from stream.core.scoring import ScoreProcessor
from stream.envelope import write
from stream.events import PredictionRequested
from stream.settings import Settings
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive

ROW_SECONDS: Final = 0.005
COMMIT_SECONDS: Final = 0.005
INTERVAL_SECONDS: Final = 0.1
FETCHED: Final = 1_000  # requests in a slice at most
QUICK: Final = tuple(f"quick-{number}" for number in range(10))
MODELS: Final = (*QUICK, "slow")
START_MS: Final = 1_700_000_000_000

Due = tuple[float, str]  # seconds, model


class Found(NamedTuple):
    """Delays in seconds at the median, the 99th percentile and at most; checkpoint bytes."""

    quick: NDArray[np.float64]
    slow: NDArray[np.float64]
    most_waiting: int
    checkpoint_bytes: int


class Partition:
    """One partition of score, and the time that passes for it."""

    def __init__(self, slow_model_ms: float) -> None:
        self._set_on = 0.0
        settings = CoreSettings(slow_model_ms=slow_model_ms)
        counts = {"requests": 1, "predictions": 1, "summaries": 1}
        self.stage = ScoreProcessor(Context(0, counts, settings, self.now))
        self.fleet = {name: self._live(name) for name in MODELS}
        self.checkpoint_bytes = 0

    def now(self) -> float:
        return time.thread_time() + self._set_on

    def pass_time(self, seconds: float) -> None:
        self._set_on += max(0.0, seconds)

    def commit(self) -> None:
        parts = self.stage.changes(complete=False)
        self.checkpoint_bytes += sum(len(part) for part in parts.values() if part)
        self.pass_time(COMMIT_SECONDS)

    def _live(self, name: str) -> FakeLive:
        def predict(_: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
            self.pass_time(ROW_SECONDS * len(rows) if name == "slow" else 0.0)
            return np.zeros((len(rows), 1))

        return FakeLive(msgspec.structs.replace(CHURN, name=name), predict=predict)


def steady(seconds: float, rates: dict[str, float], seed: int = 1) -> list[Due]:
    """Requests by model at these rates, at times of their own (Poisson)."""
    rng = random.Random(seed)
    dues = list[Due]()
    for model, rate in rates.items():
        due = rng.expovariate(rate)
        while due < seconds:
            dues.append((due, model))
            due += rng.expovariate(rate)
    return sorted(dues)


def cases(scale: float) -> Iterator[tuple[str, list[Due]]]:
    """By name, when which requests are due."""
    quick = dict.fromkeys(QUICK, 50.0)
    beside = steady(30 * scale, {**quick, "slow": 40.0})
    yield "beside", beside
    yield "burst", sorted([*beside, *[(5.0 * scale, "slow")] * int(2_000 * scale)])
    order = [model for _, model in beside]
    yield "backlog", [(0.0, model) for model in order]
    yield "flood", steady(60 * scale, {**quick, "slow": 300.0})
    yield "long flood", steady(120 * scale, {**quick, "slow": 300.0})
    yield "cheap flood", steady(30 * scale, {**quick, "quick-0": 1_000.0})


def request(offset: int, model: str) -> Record:
    data = PredictionRequested(prediction_id=f"r-{offset}", model=model, features=GOOD_FEATURES)
    kind = "driftline.prediction.requested.v1"
    value = write(kind, data, id=str(offset), source="bench", time_ms=START_MS)
    return Record(offset, START_MS, b"k", value)


def measure(dues: Sequence[Due], slow_model_ms: float) -> Found:
    """One run. Every request must have its prediction once, and a model's in their order."""
    records = [request(offset, model) for offset, (_, model) in enumerate(dues)]
    one = Partition(slow_model_ms)
    one.stage.apply(Batch("requests", 0, [request(10**9, model) for model in MODELS]), one.fleet)
    began = one.now()
    done: list[tuple[float, list[Output]]] = []
    at, most, waiting, commit_due = 0, 0, list[Output](), 0.0
    while at < len(records) or one.stage.backlog or waiting:
        now = one.now() - began
        end = at
        while end < len(dues) and dues[end][0] <= now:
            end += 1
        if end > at:
            last = min(end, at + FETCHED)
            batch = Batch("requests", 0, records[at:last], end - last)
            waiting += one.stage.apply(batch, one.fleet)
            at = last
        elif one.stage.backlog:
            waiting += one.stage.proceed(one.fleet)
        else:
            nexts = [dues[at][0]] if at < len(dues) else []
            one.pass_time(min([*nexts, commit_due] if waiting else nexts) - now)
        most = max(most, one.stage.backlog)
        if waiting and one.now() - began >= commit_due:
            one.commit()
            done.append((one.now() - began, waiting))
            waiting, commit_due = [], one.now() - began + INTERVAL_SECONDS
    return Found(*_delays(dues, done), most, one.checkpoint_bytes)


def _delays(
    dues: Sequence[Due], done: Sequence[tuple[float, list[Output]]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    told = [
        (int((output.key or b"").removeprefix(b"r-")), at) for at, some in done for output in some
    ]
    by_model = sorted(told, key=lambda one: dues[one[0]][1])  # stable
    for _, of_model in groupby(by_model, key=lambda one: dues[one[0]][1]):
        offsets = [offset for offset, _ in of_model]
        assert offsets == sorted(offsets), "a model's requests are not in their order"
    assert len({offset for offset, _ in told}) == len(told) == len(dues), "not each once"
    quick = [at - dues[offset][0] for offset, at in told if dues[offset][1] != "slow"]
    slow = [at - dues[offset][0] for offset, at in told if dues[offset][1] == "slow"]
    return np.array(quick), np.array(slow or [0.0])


def main() -> None:
    one = parser("What a slow model costs the others of its partition.")
    one.add_argument("--only", help="cases, with commas between them")
    given = one.parse_args()
    wanted = given.only.split(",") if given.only else None
    shipped = Settings().slow_model_ms
    rows, figures = [], dict[str, object]()
    for name, dues in cases(0.2 if given.quick else 1.0):
        if wanted is not None and name not in wanted:
            continue
        for way, slow_model_ms in (("together", 0.0), ("lines", shipped)):
            found = measure(dues, slow_model_ms)
            say(f"{name}, {way}: done")
            rows.append([f"{name}, {way}"])
            for kind, delays in (("others", found.quick), ("slow", found.slow)):
                for at in (50, 99, 100):
                    value = float(np.percentile(delays, at))
                    rows[-1].append(f"{value:,.2f}")
                    figures[f"{name}_{way}_{kind}_p{at}_seconds".replace(" ", "_")] = value
            rows[-1] += [f"{found.most_waiting:,}", f"{found.checkpoint_bytes / 2**20:.1f}"]
    columns = ["seconds", "others p50", "p99", "most", "slow p50", "p99", "most"]
    columns += ["in lines", "MiB in checkpoints"]
    title = "From when a request is due to its commit, one slow model and ten quick ones"
    report(title, columns, rows, figures, as_json=given.json)


if __name__ == "__main__":
    main()
