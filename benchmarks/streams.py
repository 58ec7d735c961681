"""Driftline on real streams, beside what costs less: alarms, fits, and what they are worth.

    python -m benchmarks.streams [--data FOLDER] [--seed N] [--only elec2,bikes] [--plot FILE.svg]

Accuracy after retraining does not show that a detector works, for a blind schedule often matches
it; so the table also has schedules with as many fits, the label before as a guess, and a learner
that goes on learning without any detector. Only one stream has a published drift; false alarms and
delays are therefore measured on the same rows shuffled, where nothing changes until labels are made
wrong from the middle on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import drift
from river.drift import binary
from sklearn.naive_bayes import GaussianNB

from benchmarks.loops import Fits, Scored, Version, driftline, fitted
from benchmarks.real_streams import NAMES, TICK, Missing, Stream, load, remembering, wanting_newer
from benchmarks.reporting import parser, report, say
from benchmarks.stream_plots import draw
from models import losses
from models.features import Coder
from models.spec import Policy

Floats = NDArray[np.float64]

QUICK_ROWS: Final = 6000
FROZEN: Final = "frozen"
CLOCK: Final = "Driftline, also by the clock"
REMEMBERING: Final = "Driftline, by the clock, history chosen, refitted"
NEWER: Final = f"{REMEMBERING}, not worse is enough"
SHOWN: Final = (FROZEN, f"as many fits as {REMEMBERING}, blindly", REMEMBERING)
WRONG: Final = 0.2  # of labels, from the middle of a shuffled stream on
RIVER: Final[dict[str, Callable[[], Any]]] = {
    "ADWIN": drift.ADWIN,
    "DDM": binary.DDM,
    "EDDM": binary.EDDM,
    "HDDM_A": binary.HDDMA,
    "HDDM_W": binary.HDDMW,
    "Page-Hinkley": drift.PageHinkley,
}


class Outcome(NamedTuple):
    """One strategy on one stream.

    Attributes:
        alarms: rows at which it alarmed (Driftline: on harm).
        drifts: alerts that only explain (Driftline: inputs or predictions changed, data broken).
        ends_with: mean log loss of the last window of rows.
        course: mean log loss of each tick.
    """

    accuracy: float
    log_loss: float | None
    fits: int
    alarms: list[int]
    drifts: int = 0
    ends_with: float | None = None
    course: tuple[float, ...] = ()


Strategy = Callable[[Stream, Version, Fits, list[range]], Iterator[Scored]]


def frozen(stream: Stream, first: Version, fits: Fits, ticks: list[range]) -> Iterator[Scored]:
    """Version 1 for ever."""
    for tick in ticks:
        yield Scored(_said(first, stream, tick), (), False)


def every(rows: int) -> Strategy:
    """A new version after every so many rows, live at once."""

    def schedule(
        stream: Stream, first: Version, fits: Fits, ticks: list[range]
    ) -> Iterator[Scored]:
        version, due = first, ticks[0].start + rows
        for tick in ticks:
            outputs, retrained = _said(version, stream, tick), False
            while tick.stop >= due:
                due += rows
                version, retrained = fits.until(tick.stop) or version, True
            yield Scored(outputs, (), retrained)

    return schedule


def detected(make: Callable[[], Any]) -> Strategy:
    """A new version, live at once, at every alarm of one of river's detectors on the errors."""

    def watched(stream: Stream, first: Version, fits: Fits, ticks: list[range]) -> Iterator[Scored]:
        version, detector = first, make()
        for tick in ticks:
            outputs = _said(version, stream, tick)
            if alarmed := _alarms(detector, _errors(stream, tick, outputs)):
                version, detector = fits.until(tick.stop) or version, make()
            yield Scored(outputs, ("harm",) if alarmed else (), alarmed)

    return watched


def play(stream: Stream, strategy: Strategy, first: Version, fits: Fits) -> Outcome:
    """A strategy on the rows after those that trained version 1, predicted before they are told."""
    ticks = ticks_of(stream)
    right, fitted_, drifts = 0.0, 0, 0
    alarms: list[int] = []
    lost: list[Floats] = []
    for tick, scored in zip(ticks, strategy(stream, first, fits, ticks), strict=True):
        labels = stream.examples.labels[tick.start : tick.stop]
        right += losses.correct(stream.spec, scored.outputs, labels).sum()
        lost.append(losses.losses(stream.spec, scored.outputs, labels))
        fitted_ += scored.retrained
        if {"harm", "probation"} & set(scored.alarmed):
            alarms.append(tick.stop)
        drifts += len(set(scored.alarmed) - {"harm", "probation"})
    every_one = np.concatenate(lost)
    return Outcome(
        accuracy=right / len(every_one),
        log_loss=float(every_one.mean()),
        fits=fitted_,
        alarms=alarms,
        drifts=drifts,
        ends_with=float(every_one[-stream.window :].mean()),
        course=tuple(float(one.mean()) for one in lost),
    )


def ticks_of(stream: Stream) -> list[range]:
    rows = len(stream.examples.rows)
    return [range(at, min(at + TICK, rows)) for at in range(stream.window, rows, TICK)]


def no_change(stream: Stream) -> Outcome:
    """The label before, as a guess."""
    labels = stream.examples.labels[stream.window - 1 :]
    return Outcome(float((labels[1:] == labels[:-1]).mean()), None, 0, [])


def online(stream: Stream) -> Outcome:
    """Gaussian naive Bayes that learns from every tick and forgets nothing."""
    coder = Coder.fit(stream.spec, stream.examples.rows[: stream.window])
    matrix = np.nan_to_num(coder.matrix(stream.examples.rows))
    labels = stream.examples.labels
    learner = GaussianNB()
    learner.partial_fit(
        matrix[: stream.window], labels[: stream.window], np.arange(len(stream.spec.classes))
    )
    right = 0
    for tick in ticks_of(stream):
        at = slice(tick.start, tick.stop)
        with np.errstate(divide="ignore"):  # a class that has not come yet
            right += int((learner.predict(matrix[at]) == labels[at]).sum())
        learner.partial_fit(matrix[at], labels[at])
    return Outcome(right / (len(labels) - stream.window), None, 0, [])


def compare(stream: Stream, seed: int) -> dict[str, Outcome]:
    """Every strategy on a stream as it is."""
    fits, more = Fits(stream, seed), remembering(stream)
    first, looks_back = fits.until(stream.window), Fits(more, seed)
    assert first is not None
    found = {FROZEN: play(stream, frozen, first, fits)}
    rows = len(stream.examples.rows) - stream.window
    for name, mine, of, its in (
        ("Driftline", driftline, stream, fits),
        (CLOCK, by_the_clock, stream, fits),
        (REMEMBERING, by_the_clock, more, looks_back),
    ):
        found[name] = play(of, mine, first, its)
        blind = every(rows // (found[name].fits + 1) + 1)
        found[blindly(name)] = play(of, blind, first, its)
    found[NEWER] = play(wanting_newer(more), by_the_clock, first, looks_back)
    found["a fit every window"] = play(stream, every(stream.window), first, fits)
    for name in ("ADWIN", "DDM"):
        found[f"a fit at every alarm of {name}"] = play(stream, detected(RIVER[name]), first, fits)
    return found | {"online, no detector": online(stream), "no change": no_change(stream)}


def blindly(name: str) -> str:
    """The schedule with as many fits, by the same trainer."""
    return f"as many fits as {name}, blindly"


def by_the_clock(
    stream: Stream, first: Version, fits: Fits, ticks: list[range]
) -> Iterator[Scored]:
    """Driftline with a challenger every window as well, which must be proven better."""
    times = stream.examples.times_ms
    seconds = float(times[-1] - times[0]) / 1000 / len(times) * stream.window
    policy = msgspec.structs.replace(stream.spec.policy, retrain_every_seconds=seconds)
    spec = msgspec.structs.replace(stream.spec, policy=policy)
    return driftline(stream._replace(spec=spec), first, fits, ticks)


class Told(NamedTuple):
    """Alarms on a shuffled stream: before anything changed, and the first one after."""

    false: int
    events: int
    delay: int | None


def shuffled(stream: Stream, seed: int) -> dict[str, Told]:
    """Nothing changes in the first half; from then on some labels are wrong."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(stream.examples.rows))
    examples = stream.examples._replace(
        rows=[stream.examples.rows[int(i)] for i in order],
        labels=stream.examples.labels[order],
    )
    middle = stream.window + (len(order) - stream.window) // 2 // TICK * TICK
    wrong = (np.arange(len(order)) >= middle) & (chance.random(len(order)) < WRONG)
    others = (examples.labels + chance.integers(1, len(stream.spec.classes), len(order))) % len(
        stream.spec.classes
    )
    labels = np.where(wrong, others, examples.labels)
    mixed = stream._replace(examples=examples._replace(labels=labels))
    first = fitted(mixed.spec, mixed.examples.part(0, mixed.window), seed)
    assert first is not None
    ticks = ticks_of(mixed)
    found = {"Driftline": play(mixed, _watched_only, first, Fits(mixed, seed)).alarms}
    errors = np.concatenate([_errors(mixed, t, _said(first, mixed, t)) for t in ticks])
    for name, make in RIVER.items():
        detector = make()
        found[name] = [
            mixed.window + i + 1 for i, error in enumerate(errors) if _alarms(detector, [error])
        ]
    return {name: _told(alarms, middle, mixed.window) for name, alarms in found.items()}


def _watched_only(
    stream: Stream, first: Version, fits: Fits, ticks: list[range]
) -> Iterator[Scored]:
    """Driftline's verdicts, without what they ask for."""
    policy = Policy(retrain=False, promote=False, rollback=False)
    spec = msgspec.structs.replace(stream.spec, policy=policy)
    return driftline(stream._replace(spec=spec), first, fits, ticks)


def _told(alarms: list[int], middle: int, start: int) -> Told:
    after = [alarm - middle for alarm in alarms if alarm > middle]
    return Told(sum(alarm <= middle for alarm in alarms), middle - start, min(after, default=None))


def _said(version: Version, stream: Stream, tick: range) -> Floats:
    return version.model.predict(stream.examples.rows[tick.start : tick.stop])


def _errors(stream: Stream, tick: range, outputs: Floats) -> NDArray[np.bool_]:
    return ~losses.correct(stream.spec, outputs, stream.examples.labels[tick.start : tick.stop])


def _alarms(detector: Any, errors: Any) -> bool:
    found = False
    for error in errors:
        detector.update(bool(error))
        found |= bool(detector.drift_detected)
    return found


def _show_streams(outcomes: dict[str, dict[str, Outcome]], streams: dict[str, Stream]) -> None:
    for name, found in outcomes.items():
        stream = streams[name]
        rows = []
        for strategy, one in found.items():
            delay = _delay(one, stream)
            rows.append(
                (
                    strategy,
                    f"{one.accuracy:.3f}",
                    "" if one.log_loss is None else f"{one.log_loss:.3f}",
                    "" if one.ends_with is None else f"{one.ends_with:.3f}",
                    str(one.fits),
                    str(len(one.alarms)),
                    delay,
                )
            )
        what = f"{name}: {len(stream.examples.rows):,} rows, ticks of {TICK}"
        columns = (
            "strategy",
            "accuracy",
            "log loss",
            "at the end",
            "fits",
            "alarms",
            "before / delay",
        )
        report(what, columns, rows, {}, as_json=False)


def _delay(one: Outcome, stream: Stream) -> str:
    """Alarms before the published drift, and events from it to the first one after."""
    if stream.drift is None or not one.alarms:
        return ""
    after = [alarm - stream.drift for alarm in one.alarms if alarm > stream.drift]
    before = len(one.alarms) - len(after)
    return f"{before} / {min(after)}" if after else f"{before} / none"


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", type=Path, help="folder with elec2 and insects, as .csv.gz")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--repeats", type=int, default=3, help="of the shuffled streams")
    arguments.add_argument("--rows", type=int, default=60_000, help="of each stream, at most")
    arguments.add_argument("--only", default=",".join(NAMES), help="which streams")
    arguments.add_argument("--plot", type=Path, help="draw the rolling loss of each as SVG or PNG")
    options = arguments.parse_args()
    outcomes: dict[str, dict[str, Outcome]] = {}
    streams: dict[str, Stream] = {}
    mixed: dict[str, list[dict[str, Told]]] = {}
    for name in options.only.split(","):
        try:
            stream = load(name, options.data, QUICK_ROWS if options.quick else options.rows)
        except Missing as missing:
            say(f"{name} is left out: {missing}")
            continue
        if len(stream.examples.rows) <= 2 * stream.window:
            say(f"{name} is left out: too few rows for --quick")
            continue
        say(f"{name}: {len(stream.examples.rows):,} rows")
        streams[name] = stream
        outcomes[name] = compare(stream, options.seed)
        repeats = 1 if options.quick else options.repeats
        mixed[name] = [shuffled(stream, options.seed + i) for i in range(repeats)]
    _show_streams(outcomes, streams)
    if options.plot:
        shown = {name: {s: found[s].course for s in SHOWN} for name, found in outcomes.items()}
        draw(shown, {name: one.window // TICK for name, one in streams.items()}, options.plot)
    columns, rows, figures = _mixed(mixed)
    figures["rows"] = {name: len(stream.examples.rows) for name, stream in streams.items()}
    for name, found in outcomes.items():
        for strategy, one in found.items():
            figures[f"{name}: {strategy}"] = one._replace(course=())._asdict()
    what = f"the same rows shuffled; {WRONG:.0%} of labels wrong from the middle on"
    report(what, columns, rows, figures, as_json=options.json)


def _mixed(
    mixed: dict[str, list[dict[str, Told]]],
) -> tuple[tuple[str, ...], list[tuple[str, ...]], dict[str, object]]:
    """For each stream: false alarms in all repeats, and the median delay of those that found it."""
    columns = ("detector", *(f"{name}: false, delay" for name in mixed))
    rows: list[tuple[str, ...]] = []
    figures: dict[str, object] = {}
    for detector in ("Driftline", *RIVER):
        row = [detector]
        for name, repeats in mixed.items():
            told = [repeat[detector] for repeat in repeats]
            delays = [one.delay for one in told if one.delay is not None]
            false, events = sum(one.false for one in told), sum(one.events for one in told)
            delay = statistics.median(delays) if delays else None
            missed = f" ({len(delays)}/{len(told)})" if len(delays) < len(told) else ""
            row.append(f"{false} in {events:,}, {'-' if delay is None else f'{delay:g}'}{missed}")
            figures[f"{name} shuffled: {detector}"] = {
                "false_alarms": false,
                "events": events,
                "delay": delay,
                "found": len(delays),
                "of": len(told),
            }
        rows.append(tuple(row))
    return columns, rows, figures


if __name__ == "__main__":
    main()
