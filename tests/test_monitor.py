"""The monitor stage from outside: records in; examples, summaries, progress, dead letters out."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from models.features import Row
from models.profile import SegmentProfile
from models.profiling import build_profile
from models.spec import Feature, Labels, ModelSpec, Ticks, check
from stream.core.folding import FEW
from stream.core.joining import Join
from stream.core.monitor import MonitorProcessor
from stream.core.packing import Prediction, kind_of
from stream.core.partitioning import partition_of
from stream.core.processor import Batch, Fleet, Output, Record
from stream.events import LOSS_BINS, SummaryComputed
from stream.topics import HEADER_REASON, HEADER_REROUTED
from tests.monitoring import (
    FLEET,
    HORIZON_MS,
    LATENESS_MS,
    SPEC,
    T0,
    TICK_MS,
    Live,
    data_of,
    examples_in,
    feed,
    feedback,
    keep,
    merged,
    monitor,
    prediction,
    progress_of,
    reference,
    summaries_of,
)

TICK = T0 // TICK_MS


def report(
    processor: MonitorProcessor, at: int = 100_000, *, caught_up: bool = True
) -> list[Output]:
    """What the stage says when the clock is `at` ms after T0."""
    return processor.advance(T0 + at, caught_up, FLEET)


def whole(outputs: list[Output]) -> list[SummaryComputed]:
    return [one for one in summaries_of(outputs) if not one.segment]


def test_corrections_of_a_searched_version_are_counted_beside_labels_of_one_that_is_not() -> None:
    """Slices have first labels alone, and here none of the version that has slices comes."""
    known = reference()
    live = Live(versions=(1, 2), known=known)
    live._profiles[2] = replace(known, slices=None)
    fleet, processor = {SPEC.name: live}, monitor()
    feed(processor, prediction("p", 0), feedback("p", 100, "no"), fleet=fleet)
    processor.advance(T0 + 10_000, False, fleet)
    more = prediction("q", 900, version=2), feedback("p", 1_200, "yes"), feedback("q", 1_000, "yes")
    feed(processor, *more, fleet=fleet)
    told = summaries_of(processor.advance(T0 + 20_000, False, fleet))
    corrected = [one for one in told if one.version == 1 and not one.segment]
    assert sum(one.counters.get("corrections", 0) for one in corrected) == 1
    assert sum(one.labelled for one in told if one.version == 2 and not one.segment) == 1


def test_a_label_makes_an_example_that_says_where_the_features_lie() -> None:
    outputs = feed(monitor(), prediction("x", 0), prediction("p", 100), feedback("p", 350, "no"))
    assert data_of(outputs, "examples") == [
        {
            "model": "churn",
            "version": 1,
            "partition": 0,
            "prediction_ids": ["p"],
            "offsets": [1],
            "predicted_ms": [T0 + 100],
            "labelled_ms": [T0 + 350],
            "labels": ["no"],
        }
    ]
    assert outputs[0].key == b"churn"
    assert outputs[0].partition == 0


def test_an_example_has_its_label_in_one_spelling() -> None:
    outputs = feed(
        monitor(),
        *(prediction(id_, 0) for id_ in "abc"),
        *(feedback(id_, 1, label) for id_, label in zip("abc", (True, 1, "yes"), strict=True)),  # type: ignore[arg-type]
    )
    assert [one.label for one in examples_in(outputs)] == ["yes", "yes", "yes"]


def test_sums_lie_in_the_tick_of_the_prediction_and_bets_in_the_tick_of_the_arrival() -> None:
    processor = monitor()
    feed(processor, prediction("p", 100, output=0.9), feedback("p", 5_100))
    made, arrived = whole(report(processor))
    assert (made.tick, made.predictions, made.labelled, made.bets) == (TICK, 1, 1, [])
    assert made.sums == {"correct": 1_000_000, "log_loss": 105_361, "loss": 26_340}
    assert made.squares == {"correct": 1_000_000, "log_loss": 11_101, "loss": 694}
    assert (arrived.tick, arrived.predictions, arrived.labelled) == (TICK + 5, 0, 0)
    assert len(arrived.bets) == LOSS_BINS
    assert sum(arrived.bets) == 1
    assert arrived.delays == {"2": 1}


def test_a_correction_restates_sums_and_makes_no_bet() -> None:
    processor = monitor()
    feed(processor, prediction("p", 100, output=0.9), feedback("p", 200))
    report(processor, 1_500, caught_up=True)
    outputs = feed(processor, feedback("p", 3_000, "no"))
    (example,) = examples_in(outputs)
    assert (example.label, example.revision) == ("no", 1)
    restated, counted = whole(report(processor))
    assert (restated.tick, restated.labelled, restated.bets) == (TICK, 0, [])
    assert restated.sums["correct"] == -1_000_000
    assert restated.sums["log_loss"] == 2_302_585 - 105_361
    assert (counted.tick, counted.counters) == (TICK + 3, {"corrections": 1})


def test_a_shadow_is_paired_with_the_version_on_the_same_label() -> None:
    processor = monitor()
    feed(processor, prediction("p", 100, output=0.5, shadow={"7": 0.9}), feedback("p", 200))
    (one,) = whole(report(processor))
    pairs = one.pairs["7"]
    assert (pairs.n, pairs.losses, pairs.shadow_losses) == (1, 693_147, 105_361)
    assert pairs.d_sum == round((math.log(2) + math.log(0.9)) / 4 * 1e6)


def test_signals_are_counted_on_the_bins_of_the_reference() -> None:
    processor = monitor()
    feed(processor, prediction("p", 0, plan="b"), prediction("q", 0, plan="zzz"))
    feed(processor, feedback("p", 0))
    one = whole(report(processor))[0]
    profile = FLEET["churn"].profile(1)
    assert profile
    assert {name: len(counts) for name, counts in one.signals.items()} == {
        signal.name: len(signal.counts) for signal in profile.signals
    }
    assert one.signals["plan"] == [0, 1, 1, 0]


def test_segments_are_the_values_the_reference_knows_and_the_rest() -> None:
    processor = monitor()
    feed(processor, prediction("p", 0, plan="b"), prediction("q", 0, plan="zzz"), feedback("q", 9))
    found = {one.segment: one for one in summaries_of(report(processor))}
    assert sorted(found) == ["", "plan=(other)", "plan=b"]
    assert found["plan=(other)"].labelled == 1
    assert set(found["plan=b"].signals) == {"prediction"}


def test_deltas_come_before_the_progress_that_closes_their_ticks_and_all_partitions_hear_it() -> (
    None
):
    processor = monitor()
    feed(processor, prediction("p", 0), feedback("p", 1))
    outputs = report(processor)
    kinds = [msgspec.json.decode(output.value or b"")["type"] for output in outputs]
    assert kinds[-2:] == ["driftline.progress.reported.v1"] * 2
    assert "driftline.progress.reported.v1" not in kinds[:-2]
    assert [output.partition for output in outputs[-2:]] == [0, 1]
    home = partition_of(b"churn", 2, "murmur2")
    assert {output.partition for output in outputs[:-2]} == {home}


def test_it_reports_once_an_interval_also_when_idle() -> None:
    processor = monitor()
    clocks = range(0, 5_001, 250)
    reports = [len(progress_of(report(processor, clock))) for clock in clocks]
    assert [clock for clock, count in zip(clocks, reports, strict=True) if count] == [
        *range(0, 5_001, 1_000)
    ]


def test_it_waits_up_to_another_interval_for_a_clock_that_it_has_caught_up_with() -> None:
    processor = monitor()
    report(processor, 0)
    assert not report(processor, 1_500, caught_up=False)
    assert progress_of(report(processor, 1_750))[0].caught_up
    assert not report(processor, 3_500, caught_up=False)
    assert progress_of(report(processor, 3_750, caught_up=False))


def test_an_idle_partition_is_as_far_as_the_clock_and_one_that_lags_is_not() -> None:
    lagging, idle = monitor(), monitor()
    for processor in (lagging, idle):
        feed(processor, prediction("p", 0), prediction("q", 100))
    (behind,) = progress_of(report(lagging, caught_up=False))
    (ahead,) = progress_of(report(idle))
    assert behind.watermark_ms == 0
    assert T0 + 90_000 < ahead.watermark_ms < T0 + 100_000


def test_the_clock_of_a_replayer_counts_and_the_wall_clock_does_not() -> None:
    processor = monitor(clock="event")
    feed(processor, prediction("p", 0), prediction("q", 100), feedback("p", 100))
    (before,) = progress_of(report(processor))
    assert before.watermark_ms == 0
    for entity in ("predictions", "feedback"):
        value = b"""{"specversion": "1.0", "id": "c", "source": "test",
            "type": "driftline.clock.advanced.v1", "data": {"clock_ms": %d}}""" % (T0 + 7_000)
        record = Record(9, T0 + 7_000, None, value)
        processor.apply(Batch(entity, 0, [record]), FLEET)
    (after,) = progress_of(report(processor, 200_000))
    assert after.watermark_ms == T0 + 7_000 - LATENESS_MS


def test_what_lies_in_the_wrong_partition_is_sent_on_once_with_its_bytes_key_and_headers() -> None:
    here = 1 - partition_of(b"p", 2, "murmur2")
    processor = monitor(here, 2)
    record = prediction("p", 0).record(0)._replace(key=None, headers=(("trace", b"1"),))
    (output,) = processor.apply(Batch("predictions", here, [record]), FLEET)
    mark = (HEADER_REROUTED, str(here).encode())
    assert output == Output(
        "predictions", None, record.value, 1 - here, (("trace", b"1"), mark), None
    )
    assert not processor.changes(complete=False).get("deltas")
    again = record._replace(headers=output.headers)
    assert not processor.apply(Batch("predictions", here, [again]), FLEET)
    assert processor.counters["predictions"] == 2
    assert whole(report(processor))[0].predictions == 1


def test_a_rerouted_record_keeps_the_time_of_a_replayer() -> None:
    here = 1 - partition_of(b"p", 2, "murmur2")
    record = feedback("p", 0).record(0)
    (output,) = monitor(here, 2, clock="event").apply(Batch("feedback", here, [record]), FLEET)
    assert output.timestamp_ms == T0


@pytest.mark.parametrize("value", [None, b"{", b"[]", b'{"prediction_id": "p", "model": "churn"}'])
def test_what_cannot_be_read_becomes_a_dead_letter_and_the_next_record_counts(
    value: bytes | None,
) -> None:
    processor = monitor()
    record = Record(0, T0, b"key", value)
    (letter,) = processor.apply(Batch("predictions", 0, [record]), FLEET)
    assert (letter.entity, letter.key, letter.value) == ("predictions.dlq", b"key", value)
    assert HEADER_REASON in dict(letter.headers)
    feed(processor, prediction("p", 0))
    assert whole(report(processor))[0].predictions == 1


def test_a_prediction_of_an_unknown_version_waits_holds_the_watermark_and_then_counts() -> None:
    processor = monitor(unknown_model_wait_ms=50_000)
    feed(processor, prediction("p", 1_000, version=2), prediction("q", 60_000))
    (held,) = progress_of(report(processor, 70_000))
    assert held.watermark_ms == T0 + 1_000 - LATENESS_MS
    fleet = {"churn": Live(generation=2, versions=(1, 2))}
    outputs = processor.advance(T0 + 80_000, True, fleet)
    made = [one for one in whole(outputs) if one.predictions]
    assert [(one.version, one.tick, one.predictions) for one in made] == [(2, TICK + 1, 1)]
    (free,) = progress_of(outputs)
    assert free.watermark_ms > T0 + 70_000
    assert free.applied[-1].generations == {"churn": 2}
    assert processor.generations == {"churn": 2}


def test_a_record_of_a_model_that_never_comes_is_a_dead_letter_after_its_wait() -> None:
    processor = monitor(unknown_model_wait_ms=5_000)
    assert not feed(processor, prediction("p", 0, model="nobody"))
    assert not data_of(report(processor, 10_000), "predictions.dlq")
    letters = [o for o in report(processor, 15_000) if o.entity == "predictions.dlq"]
    assert [dict(letter.headers)[HEADER_REASON] for letter in letters] == [b"unknown-model"]


def test_a_late_label_is_bet_on_in_a_tick_that_is_still_open() -> None:
    processor = monitor()
    feed(processor, prediction("p", 0))
    (progress,) = progress_of(report(processor, 6_000))
    feed(processor, feedback("p", 100, delay=6_500))
    late = [one for one in whole(report(processor)) if one.bets]
    assert [(one.tick, one.counters) for one in late] == [
        ((T0 + 6_600 - LATENESS_MS) // TICK_MS, {"late": 1})
    ]
    assert late[0].tick * TICK_MS >= progress.watermark_ms


def test_deltas_that_were_not_reported_survive_a_restore() -> None:
    processor, stored = monitor(), dict[str, bytes]()
    feed(processor, prediction("p", 0, shadow={"2": 0.1}), feedback("p", 1))
    keep(stored, processor.changes(complete=False))
    again = monitor()
    again.restore(stored)
    assert report(again) == report(processor)


def test_nothing_is_written_when_nothing_has_happened() -> None:
    processor = monitor()
    feed(processor, prediction("p", 0))
    report(processor)
    processor.changes(complete=False)
    assert processor.changes(complete=False) == {}


def test_all_is_forgotten_when_its_time_has_passed() -> None:
    processor, stored = monitor(), dict[str, bytes]()
    feed(processor, prediction("p", 0), prediction("q", 0), feedback("p", 1), feedback("r", 1))
    keep(stored, processor.changes(complete=False))
    outputs = report(processor, 10 * HORIZON_MS)
    assert sum((one.counters.get("expired", 0) for one in whole(outputs)), 0) == 1
    assert sum((one.counters.get("orphans", 0) for one in whole(outputs)), 0) == 1
    keep(stored, processor.changes(complete=False))
    assert sorted(stored) == ["early.head", "join.head", "join.names", "state"]


def _spec(**more: Any) -> ModelSpec:
    ticks, labels = Ticks(seconds=1.0), Labels()
    return check(
        ModelSpec(name="churn", features=SPEC.features, ticks=ticks, labels=labels, **more)
    )


def test_regression_sums_stay_exact_however_large_the_errors_are() -> None:
    spec = _spec(task="regression")
    processor, fleet = monitor(), {"churn": Live(spec)}
    feed(processor, prediction("p", 0, output=1e12), feedback("p", 1, -1e12), fleet=fleet)  # type: ignore[arg-type]
    feed(processor, prediction("q", 0, output=1.5), feedback("q", 1, 1.0), fleet=fleet)  # type: ignore[arg-type]
    (one,) = whole(processor.advance(T0 + 10**5, True, fleet))
    assert one.sums["absolute_error"] == 2 * 10**18 + 500_000
    assert one.sums["squared_error"] == int(4e30) + 250_000


def test_multiclass_predictions_have_a_signal_for_each_class_and_join() -> None:
    spec = _spec(task="multiclass", classes=("a", "b", "c"))
    live = Live(SPEC)
    live.lifecycle = msgspec.structs.replace(live.lifecycle, spec=spec)
    processor, fleet = monitor(), {"churn": live}
    output: Any = [0.2, 0.5, 0.3]
    outputs = feed(
        processor,
        prediction("p", 0, output=output, shadow={"2": [0.1, 0.1, 0.8]}),
        feedback("p", 1, "c"),
        fleet=fleet,
    )
    assert examples_in(outputs)[0].label == "c"
    (one,) = whole(processor.advance(T0 + 10**5, True, fleet))
    assert one.sums["correct"] == 0
    assert one.sums["log_loss"] == 1_203_973
    assert one.pairs["2"].shadow_losses == 223_144
    assert not one.signals  # the profile is of another task: its signals are not the spec's


def test_a_new_feature_in_the_spec_does_not_stop_versions_that_never_saw_it() -> None:
    spec = check(msgspec.structs.replace(SPEC, features=(*SPEC.features, Feature(name="new"))))
    live = Live(SPEC)
    live.lifecycle = msgspec.structs.replace(live.lifecycle, spec=spec, generation=2)
    processor, fleet = monitor(), {"churn": live}
    one = prediction("p", 0)
    one.data["features"]["new"] = 1.0
    feed(processor, one, fleet=fleet)
    assert whole(processor.advance(T0 + 10**5, True, fleet))[0].predictions == 1


@pytest.mark.parametrize("count", [3, 2 * FEW])
def test_a_batch_that_holds_nothing_new_counts_nothing(count: int) -> None:
    """However many come again, as when a file is sent twice: they need not have company."""
    spec = _spec(task="binary", classes=("no", "yes"), searched=())
    spec = msgspec.structs.replace(spec, features=(Feature(name="age"),))
    rows: list[Row] = [(float(n % 40),) for n in range(200)]
    outputs = np.linspace(0.0, 1.0, 200).reshape(-1, 1)
    known = build_profile(spec, rows, outputs, reference().validation)
    processor, fleet = monitor(), {"churn": Live(spec, known=known)}
    for start in (0, count):
        sent = [prediction(f"p{n}", n) for n in range(count)]
        for one in sent:
            del one.data["features"]["plan"]
        records = [one.record(start + n) for n, one in enumerate(sent)]
        processor.apply(Batch("predictions", 0, records), fleet)
        processor.changes(complete=False)  # which counts what there is
    (told,) = whole(processor.advance(T0 + 10**5, True, fleet))
    assert told.predictions == count
    assert told.counters["duplicates"] == count


def test_misplaced_events_end_in_the_same_sums() -> None:
    sent = [prediction(f"p{n}", n) for n in range(20)] + [
        feedback(f"p{n}", n + 5) for n in range(20)
    ]
    one = monitor()
    feed(one, *sent)
    two = [monitor(partition, 2) for partition in range(2)]
    outputs: list[Output] = []
    for offset, event in enumerate(sent):
        outputs += two[0].apply(Batch(event.entity, 0, [event.record(offset)]), FLEET)
    for offset, output in enumerate(
        [o for o in outputs if o.entity in ("predictions", "feedback")]
    ):
        record = Record(100 + offset, T0 + 30, output.key, output.value, output.headers)
        outputs += two[1].apply(Batch(output.entity, 1, [record]), FLEET)
    assert len(examples_in(outputs)) == 20
    found = [o for processor in two for o in report(processor)]
    assert merged(summaries_of(found)) == merged(summaries_of(report(one)))


def test_a_pending_prediction_takes_at_most_160_bytes_beside_its_id() -> None:
    """With two shadows and a segment; the worst moment, when the dict has just grown, included."""
    join, kind = Join(), kind_of(SPEC, 1, (2, 3), 4.0)
    packer = join.packer(kind)
    worst, ids = 0.0, [f"prediction-{n:09d}" for n in range(90_000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n, id_ in enumerate(ids, start=1):
        join.predict(packer, Prediction(id_, T0 + n, 0, n, b"\x01", (0.5, 0.4, 0.3)), 0)
        if n % 1000 == 0:
            join.changes(complete=False)
            held = tracemalloc.get_traced_memory()[0] - before
            keys = 52 + len(ids[0])  # the id as text, with its model's mark
            worst = max(worst, held / n - keys) if n >= 10_000 else worst
    tracemalloc.stop()
    assert worst <= 160


def test_a_label_is_judged_when_its_prediction_has_the_judging_age_if_it_came_by_then() -> None:
    """What comes later is in the windows, not in the test; corrections change no judgement."""
    labels = msgspec.structs.replace(SPEC.labels, judged_after_seconds=3.0)
    spec = msgspec.structs.replace(SPEC, labels=labels)
    whole = reference(spec)
    part = SegmentProfile(name="plan=a", signals=(), validation=whole.validation)
    fleet: Fleet = {"churn": Live(spec, known=msgspec.structs.replace(whole, segments=(part,)))}
    processor = monitor()
    feed(
        processor,
        *(prediction(id_, 0) for id_ in ("soon", "late")),
        feedback("soon", 2_000),
        feedback("soon", 2_500, "no"),
        feedback("late", 3_000),
        fleet=fleet,
    )
    told = merged(summaries_of(processor.advance(T0 + 10**5, True, fleet)))
    judged = {place: total["judged"] for place, total in told.items() if "judged" in total}
    first_of_age = T0 // 1_000 + 3
    assert list(judged) == [("churn", 1, "", first_of_age), ("churn", 1, "plan=a", first_of_age)]
    assert {stratum: sum(row) for stratum, row in judged[next(iter(judged))].items()} == {"1/1": 1}
    outcomes = told["churn", 1, "", T0 // 1_000]["outcomes"]
    assert {name: one["n"] for name, one in outcomes.items()} == {"1/0": 1, "1/1": 1}
