"""Spans of stages, bridge, trainer, registry, console; how traces come to what acts on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from consumers import bridge, relay
from consumers.console.access import Visitor
from consumers.console.actions import Asked
from consumers.demo.embedded import EmbeddedBroker
from consumers.fitting import Fitted
from consumers.loop import BrokerError
from consumers.places import Delivered, Place
from consumers.relay import Relay, lifecycle
from models.registry import Registry
from stream import tracing
from stream.core.processor import Record
from stream.core.traces import MOST
from stream.envelope import open_record
from stream.errors import Fenced
from stream.events import Command, SummaryComputed
from stream.settings import Settings
from stream.spans import sampled
from stream.transport import Slice
from tests import summaries, test_bridge, test_trainer
from tests.consoles import console, register, settings_in
from tests.registries import CHURN
from tests.registries import register as register_version
from tests.test_evaluate import World
from tests.test_partitions import REQUESTS, Log, counting, flush, restored
from tests.test_trainer import ACCEPTED, command
from tests.test_trainer import Log as Commands

log = test_trainer.log  # its fixture


def trace(number: int, flags: str = "01") -> str:
    return f"00-{number:032x}-{number:016x}-{flags}"


def event(offset: int, traceparent: str | None = None) -> Record:
    attribute = {} if traceparent is None else {"traceparent": traceparent}
    return Record(offset, 0, b"k", msgspec.json.encode({"id": "a", **attribute, "data": {}}))


def piece(*records: Record) -> Slice:
    start = records[0].offset
    return Slice(REQUESTS, 0, list(records), start, start + len(records), 1, 5)


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.trace_id for link in span.links]


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- stages ---------------------------------------------------------------------------------------


def test_a_flush_is_one_span_that_links_to_a_few_sampled_traces(
    exporter: InMemorySpanExporter,
) -> None:
    """However many events and slices: from the first that is applied to the commit."""
    broker = Log()
    broker.end = 100
    one = restored(broker)
    one.apply(piece(event(0, trace(9)), event(1), event(2, trace(8, "00"))))
    one.apply(piece(*(event(n, trace(n)) for n in range(3, 60))))
    assert exporter.get_finished_spans() == ()
    flush(one)

    (span,) = exporter.get_finished_spans()
    assert span.name == "score flush"
    assert linked(span) == [3, 4, 5]
    assert told(span)["messaging.batch.message_count"] == 60
    assert told(span)["driftline.outputs"] == 60
    assert span.start_time is not None
    assert span.start_time < span.events[0].timestamp


def test_a_flush_of_nothing_but_time_is_no_span(exporter: InMemorySpanExporter) -> None:
    broker = Log()
    one = restored(broker)
    counting(one).n = 3  # time has changed the state
    assert flush(one)
    assert exporter.get_finished_spans() == ()


def test_the_next_flush_knows_nothing_of_the_one_before(exporter: InMemorySpanExporter) -> None:
    broker = Log()
    broker.end = 2
    one = restored(broker)
    for record in (event(0, trace(5)), event(1)):
        one.apply(piece(record))
        flush(one)
    first, second = exporter.get_finished_spans()
    assert (linked(first), linked(second)) == ([5], [])
    assert told(second)["messaging.batch.message_count"] == 1


def test_a_commit_that_fails_is_the_error_of_its_span(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Log()
    broker.end = 1
    one = restored(broker)
    one.apply(piece(event(0)))

    def fenced(*_: object) -> None:
        raise Fenced("another holds it")

    monkeypatch.setattr(broker, "commit", fenced)
    with pytest.raises(Fenced):
        flush(one)
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


def test_without_a_recorder_records_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off costs nothing: neither a search of the bytes nor a span."""
    monkeypatch.setattr("stream.spans.sampled", None)
    monkeypatch.setattr("stream.tracing.tracer", None)
    assert not tracing.recording()
    broker = Log()
    broker.end = 1
    one = restored(broker)
    one.apply(piece(event(0, trace(1))))
    assert flush(one)


HOSTILE = [trace(0), trace(1, "00"), "x" * 1000, "00-1-2-01"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_sampled_trace_is_not_linked_to(text: str) -> None:
    header = Record(0, 0, b"k", b"{}", (("traceparent", text.encode()), ("other", b"\xff")))
    assert sampled([event(0, text), header, Record(1, 0, None, None)]) == []


def test_traces_of_summaries_and_of_headers_are_found() -> None:
    """What evaluate reads names several; in binary mode a header is the place for one."""
    summary = SummaryComputed(
        model="m", version=1, tick=0, partition=0, traces=[trace(1), trace(2)]
    )
    header = Record(1, 0, None, b"{}", (("traceparent", trace(3).encode()),))
    assert sampled([Record(0, 0, None, msgspec.json.encode(summary)), header]) == [
        *(trace(1), trace(2), trace(3)),
    ]


# --- from events to what acts on them -------------------------------------------------------------


class Traced(summaries.Monitor):
    """Every summary carries these traces."""

    def __init__(self, traces: Sequence[str]) -> None:
        super().__init__()
        self.traces = list(traces)

    def drain(self) -> list[Any]:
        return [
            msgspec.structs.replace(one, traces=self.traces)
            if isinstance(one, SummaryComputed)
            else one
            for one in super().drain()
        ]


def test_commands_carry_the_traces_of_what_they_are_about() -> None:
    """A retrain those of its alert; a promotion and its end those that the trial compared."""
    for given in ([trace(2), trace(1)], []):
        world = World()
        world.monitor = Traced(given)
        world.days(60)
        world.days(30, bad=0.6, v2=0.05)
        world.days(60, v1=0.6, v2=0.05)
        commands = [fact for fact in world.log if isinstance(fact, Command)]
        assert [one.kind for one in commands] == ["retrain", "promote", "settle"]
        assert [one.evidence.get("traces") for one in commands] == [sorted(given) or None] * 3


def test_a_run_and_what_goes_live_by_it_carry_them_on(log: Commands) -> None:
    """From the command to its run, to the challenger's lifecycle event, and to a promotion's."""
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain", evidence={"traces": [trace(1)]}))
    log.fits[0].result = ACCEPTED
    trainer.collect()
    (run,) = log.registry.runs("churn")
    assert run.evidence["traces"] == [trace(1)]
    assert published(log.registry).traces == [trace(1)]
    given = {"traces": [trace(n) for n in range(2, 9)]}
    log.deliver(trainer, command(log, "promote", "c2", version=2, evidence=given))
    assert published(log.registry).traces == given["traces"][:MOST]


def published(registry: Registry) -> Any:
    state = registry.live("churn")
    assert state is not None
    return lifecycle(state)


@pytest.mark.parametrize("traces", ["no list", [{"a": 1}, 7, None], ["x" * 10_000]])
def test_no_evidence_keeps_a_state_from_being_published(log: Commands, traces: object) -> None:
    """It came from elsewhere; what `lifecycle` could not carry is left out."""
    log.deliver(log.trainer(), command(log, "pin", evidence={"traces": traces}))
    assert published(log.registry).traces == []


# --- bridge ---------------------------------------------------------------------------------------


class Source:
    """A topic of somebody else's, a batch a turn."""

    def __init__(self, *batches: Sequence[Record]) -> None:
        self._batches = list(batches)
        self.committed: list[Place] = []
        self._done: list[Place] = []

    def poll(self, _seconds: float) -> list[Delivered]:
        batch = self._batches.pop(0) if self._batches else []
        return [Delivered(Place(0, record.offset), record) for record in batch]

    def done(self, place: Place) -> None:
        self._done.append(place)

    def commit(self) -> None:
        self.committed += self._done
        self._done = []


class Sink:
    """Where outputs go; it may be away."""

    def __init__(self, problem: str = "") -> None:
        self._problem = problem

    def flush(self) -> None:
        if self._problem:
            raise BrokerError(self._problem)


def halves(*traces: str | None) -> list[Record]:
    """A request and its response, with a trace each, in a header of their records."""
    return [
        made._replace(headers=(*made.headers, ("traceparent", one.encode()))) if one else made
        for made, one in zip(
            (
                test_bridge.logged(kind, payload, offset=offset)
                for offset, (kind, payload) in enumerate(
                    zip(("request", "response"), test_bridge.V1, strict=True)
                )
            ),
            traces,
            strict=True,
        )
    ]


def turns(scene: Any, source: Source, number: int, sink: Sink | None = None) -> None:
    for _ in range(number):
        bridge._turn(source, scene.bridge, sink or Sink())  # type: ignore[arg-type]


def test_a_turn_of_the_bridge_is_one_span_and_a_quiet_turn_is_none(
    exporter: InMemorySpanExporter,
) -> None:
    """From the first record to the commit, with links to sampled traces, and what was made."""
    scene = test_bridge.Scene()
    refused = Record(9, 0, None, b"no json", (("ce_traceparent", trace(8).encode()),))
    source = Source([*halves(trace(5), trace(6, "00")), refused], [])
    turns(scene, source, 2)
    (span,) = exporter.get_finished_spans()
    assert (span.name, linked(span)) == ("bridge turn", [5, 8])
    assert told(span) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 3,
        "driftline.predictions": 1,
        "driftline.refused": 1,
    }
    assert len(source.committed) == 3


def test_what_the_bridge_could_not_write_is_the_error_of_its_span(
    exporter: InMemorySpanExporter,
) -> None:
    source = Source(halves(None, None))
    with pytest.raises(BrokerError):
        turns(test_bridge.Scene(), source, 1, Sink("away"))
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert source.committed == []


def test_without_a_recorder_the_bridge_looks_for_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.spans.sampled", None)
    turns(test_bridge.Scene(), Source(halves(trace(1), None)), 1)


@pytest.mark.parametrize(
    ("traces", "carried"),
    [
        ((trace(1), trace(2)), trace(1)),
        ((None, trace(2)), trace(2)),
        ((trace(0), None), None),
        ((None, None), None),
    ],
)
def test_the_trace_of_what_was_logged_is_the_predictions(
    traces: tuple[str | None, str | None], carried: str | None
) -> None:
    """The request's before the response's; from there on it goes its way to alerts."""
    scene = test_bridge.Scene()
    for record in halves(*traces):
        scene.take(record)
    [output] = scene.written
    written = Record(0, 0, output.key, output.value)
    assert open_record("predictions", written, max_bytes=10_000).traceparent == carried


def test_events_of_a_batch_keep_their_traces_and_hostile_ones_are_left_out() -> None:
    """An attribute goes before the record's header, which is for those without one."""
    kind = "driftline.feedback.received.v1"
    label = {"prediction_id": "a", "model": "fraud", "label": "fraud"}
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": "e",
        "source": "s",
        "type": kind,
        "data": label,
    }
    given: list[dict[str, object]] = [
        {"traceparent": trace(1)},
        {},
        {"traceparent": ["x"]},
        {"traceparent": "x" * 1000},
    ]
    value = msgspec.json.encode([event | more for more in given])
    scene = test_bridge.Scene()
    scene.take(Record(0, 0, None, value, (("traceparent", trace(7).encode()),)))
    found = [msgspec.json.decode(one.value or b"") for one in scene.written]
    assert [one.get("traceparent") for one in found] == [trace(1), trace(7), None, None]

    plain = test_bridge.Scene(entity="feedback")
    plain.take(
        Record(0, 0, None, msgspec.json.encode(label), (("traceparent", trace(7).encode()),))
    )
    [one] = plain.written
    assert msgspec.json.decode(one.value or b"")["traceparent"] == trace(7)


# --- trainer, relay, console ----------------------------------------------------------------------


def test_a_retrain_is_a_span_with_its_steps_inside(
    exporter: InMemorySpanExporter, log: Commands
) -> None:
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain", evidence={"traces": [trace(1), "hostile"]}))
    assert [span.name for span in exporter.get_finished_spans()] == ["wait"]
    log.fits[0].result = ACCEPTED
    trainer.collect()
    *steps, whole = exporter.get_finished_spans()
    assert [step.name for step in steps] == ["wait", "fit", "gate"]
    assert {step.parent.span_id for step in steps if step.parent} == {whole.context.span_id}
    assert (whole.name, linked(whole)) == ("retrain", [1])
    assert told(whole).items() >= {
        *(("driftline.model", "churn"), ("driftline.command.id", "c1")),
        *(("driftline.verdict", "accepted"), ("driftline.run", 1)),
    }


@pytest.mark.parametrize("end", ["refused", "dropped"])
def test_a_retrain_that_comes_to_nothing_ends_its_span_too(
    exporter: InMemorySpanExporter, log: Commands, end: str
) -> None:
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain"))
    if end == "refused":
        log.fits[0].result = Fitted(verdict="refused", reason="too few")
        trainer.collect()
    else:
        trainer.stop()
    *_, whole = exporter.get_finished_spans()
    assert (whole.name, told(whole)["driftline.verdict"]) == ("retrain", end)


def test_what_is_done_at_once_is_a_span_with_its_outcome(
    exporter: InMemorySpanExporter, log: Commands
) -> None:
    trainer = log.trainer()
    for _ in range(2):
        log.deliver(trainer, command(log, "rollback", evidence={"traces": [trace(4)]}))
    first, second = exporter.get_finished_spans()
    assert (first.name, linked(first)) == ("rollback", [4])
    outcomes = [told(span)["driftline.outcome"] for span in (first, second)]
    assert outcomes == ["refused", "repeated"]


def test_publishing_is_a_span_that_links_to_what_led_there(
    exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    broker = EmbeddedBroker()
    settings = Settings(bootstrap_servers=broker.bootstrap_servers, embedded_broker=True)
    with Registry(f"sqlite:///{tmp_path}/r.db") as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="test")
        version = register_version(registry)
        registry.promote("churn", version, who="test", evidence={"traces": [trace(6)]})
        publishing = Relay(registry, settings)
        assert (publishing.pump(), publishing.pump()) == (2, 0)
    (span,) = exporter.get_finished_spans()
    assert (span.name, linked(span)) == ("publish lifecycle", [6])
    assert told(span)["driftline.models"] == ("churn",)


def test_what_a_person_asks_of_the_console_is_a_span_without_their_name(
    exporter: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PROBE_SECONDS", 0.1)  # nobody is at the broker
    settings = settings_in(tmp_path)
    register(settings)
    asked = Asked(action="promote", version=2)
    with console(settings) as parts:
        for role in ("read", "operate"):
            parts.actions.act("churn", asked, Visitor("ann", role), "127.0.0.1")
    refused, applied = (s for s in exporter.get_finished_spans() if s.name == "console promote")
    assert told(refused)["driftline.outcome"] == "refused"
    assert told(applied) == {
        "driftline.model": "churn", "driftline.role": "operate", "driftline.outcome": "applied"
    }  # fmt: skip
