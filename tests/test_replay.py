"""A past range folded again, in memory; on the real broker: `tests/kafka/test_replay.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from consumers.loop import no_topic
from consumers.places import Delivered, Place, Span
from consumers.replay import past
from consumers.replay.fleets import complete, in_force
from consumers.replay.journal import laid_out, read_journal
from consumers.replay.past import Bounds, read_past, recorded
from consumers.replay.verdicts import Verdicts, difference, of_outputs
from consumers.replay.what_if import by_overrides, by_spec, compare
from models.spec import ModelSpec, Policy, Ticks
from stream.core.evaluate import EvaluateProcessor
from stream.core.partitioning import partition_of
from stream.core.processor import Batch, Context, CoreSettings, LiveModel, Output, Record
from stream.core.replaying import Adoption, counted, judged
from stream.envelope import write
from stream.errors import ConfigurationError
from stream.events import (
    Alert,
    AlertHandled,
    Applied,
    Command,
    GenerationAdopted,
    LifecycleChanged,
    ProgressReported,
)
from stream.settings import Settings
from tests import monitoring
from tests.summaries import SPEC, Live, Monitor, Trainer, facts, processor, record

T0 = 1_700_000_000_000
LIFECYCLE = "driftline.lifecycle.changed.v1"
CONTEXT = Context(0, {"summaries": 4}, CoreSettings())


def seen_to(alert: Alert) -> AlertHandled:
    return AlertHandled(
        model="bikes", alert_id=alert.alert_id, kind="acknowledge", who="ada", handled_ms=1
    )


class Lived:
    """A model's log, and what evaluate said of it as it came: harm, a retrain, a new champion."""

    def __init__(self) -> None:
        trainer, monitor, core = Trainer(), Monitor(), processor()
        self.lives: dict[int, LiveModel] = {}
        self.records: list[Record] = []
        self.outputs: list[Output] = []
        for day in range(70):
            bad = 0.6 if day >= 40 else 0.05
            champion = trainer.lifecycle.champion
            shadows = dict.fromkeys(trainer.lifecycle.shadows, 0.05)
            monitor.day(
                day + 100, champion or 1, bad=0.05 if champion == 2 else bad, shadows=shadows
            )
            monitor.progress(day + 101)
            self.lives[trainer.lifecycle.generation] = Live(trainer.lifecycle)
            outputs = core.advance(0, True, trainer.fleet)
            outputs += self._told(core, monitor.drain(), trainer)
            opened = [f for f in facts(outputs) if isinstance(f, Alert) and f.revision == 0]
            outputs += self._told(core, [seen_to(alert) for alert in opened], trainer)
            self.outputs += outputs
            for fact in facts(outputs):
                if isinstance(fact, Command):
                    trainer.obey(fact)
        self.adoptions = [
            Adoption(fact.offset, fact.generation)
            for fact in facts(self.outputs)
            if isinstance(fact, GenerationAdopted)
        ]

    def _told(
        self, core: EvaluateProcessor, events: Sequence[msgspec.Struct], trainer: Trainer
    ) -> list[Output]:
        outputs = []
        for event in events:
            one = record(event)._replace(offset=3 * len(self.records))  # as transactions leave them
            self.records.append(one)
            outputs += core.apply(Batch("summaries", 0, [one]), trainer.fleet)
        return outputs

    def again(self, adoptions: Sequence[Adoption], **parts: object) -> list[Output]:
        """Folded again, under a spec with other parts."""
        lives: dict[int, LiveModel] = {}
        for number, live in self.lives.items():
            spec = msgspec.structs.replace(live.lifecycle.spec, **parts)
            lives[number] = Live(msgspec.structs.replace(live.lifecycle, spec=spec))
        told = judged(CONTEXT, "bikes", self.records, adoptions, lives, lambda _: None)
        return list(told)


@pytest.fixture(scope="module")
def lived() -> Lived:
    return Lived()


def test_what_evaluate_said_is_said_again_to_the_byte(lived: Lived) -> None:
    kinds = {fact.kind for fact in facts(lived.outputs) if isinstance(fact, Command)}
    assert kinds >= {"retrain", "promote"}
    assert len(lived.adoptions) >= 3
    assert lived.again(lived.adoptions) == lived.outputs


def test_what_people_said_of_alerts_is_said_again_where_it_was_said(lived: Lived) -> None:
    """It lies in the model's partition, between the counts: the journal keeps it in its place."""
    said = [record for record in lived.records if b"alert.handled" in (record.value or b"")]
    assert len(said) == 1
    assert read_journal(lived.records, "bikes", 2**20).asides == said
    told = of_outputs(lived.outputs).alerts
    assert {alert.handled_by for alert in told} >= {"ada"}
    without = Lived.__new__(Lived)
    without.lives = lived.lives
    without.records = [record for record in lived.records if record not in said]
    unsaid = of_outputs(without.again(lived.adoptions)).alerts
    assert {alert.handled_by for alert in unsaid} == {""}


def test_what_was_followed_at_another_moment_is_judged_otherwise(lived: Lived) -> None:
    """So a log that does not tell that moment cannot be replayed exactly."""
    early = [Adoption(0, adoption.generation) for adoption in lived.adoptions]
    was, would = of_outputs(lived.outputs), of_outputs(lived.again(early))
    assert difference(was, would)


class OldLog:
    """What the topics hold of a model whose log is older than the topic `decisions`."""

    def __init__(self, lived: Lived) -> None:
        since = {adoption.generation: adoption.offset for adoption in lived.adoptions}
        states = [
            msgspec.structs.replace(live.lifecycle, changed_ms=T0 + since.get(generation, 0))
            for generation, live in lived.lives.items()
        ]
        self._home = partition_of(b"bikes", 4, "murmur2")
        self._partitions = {"predictions": 2, "feedback": 2, "summaries": 4, "lifecycle": 1}
        told = {
            entity: [output for output in lived.outputs if output.entity == entity]
            for entity in ("alerts", "commands")
        }
        self._records: dict[str, list[Record]] = {
            "summaries": [one._replace(timestamp_ms=T0 + one.offset) for one in lived.records],
            "lifecycle": [
                Record(n, 0, b"bikes", write(LIFECYCLE, one, id=str(n), source="t", time_ms=0))
                for n, one in enumerate(states)
            ],
        } | {e: [Record(n, 0, o.key, o.value) for n, o in enumerate(t)] for e, t in told.items()}

    def __enter__(self) -> OldLog:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def partitions(self, entity: str) -> list[int]:
        return list(range(self._partitions[entity]))

    def bounds(self, entity: str) -> list[Span]:
        if entity not in self._records:
            raise no_topic(f"driftline.{entity}.v1")
        home = self._home if entity == "summaries" else 0
        return [Span(home, 0, self._records[entity][-1].offset + 1)]

    def read(self, entity: str, spans: Sequence[Span]) -> Iterator[Delivered]:
        for span in spans:
            for one in self._records[entity]:
                if span.start <= one.offset < span.end:
                    yield Delivered(Place(span.partition, one.offset), one)


def test_a_log_that_is_older_than_decisions_is_followed_by_the_registrys_clock(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic need not be there; where evaluate followed at once, nothing differs."""
    monkeypatch.setattr(past, "RangeReader", lambda settings: OldLog(lived))
    found = read_past(Settings(), "bikes", Bounds())
    assert not found.followed
    assert [one.generation for one in found.adoptions] == sorted(lived.lives)
    told = recorded(Settings(), found)
    assert {command.kind for command in told.commands} >= {"retrain", "promote"}
    assert not difference(told, of_outputs(lived.again(found.adoptions)))
    late = [one._replace(offset=one.offset + 300) for one in found.adoptions]
    assert difference(told, of_outputs(lived.again(late)))


def test_another_policy_is_told_beside_what_was_and_parts_where_commands_differ(
    lived: Lived,
) -> None:
    was = of_outputs(lived.outputs)
    would = of_outputs(lived.again(lived.adoptions, policy=Policy(retrain=False)))
    compared = compare(was, would)
    (retrain,) = [row for row in compared.rows if row.what == "retrain"]
    assert (retrain.was_ms, retrain.would_ms) == (compared.parted_ms, None)
    assert compared.counts["retrain"] == (1, 0)
    assert would.held[0].reason == "the policy leaves retraining to people"
    harm = next(row for row in compared.rows if row.what == "alert harm")
    assert harm.was_ms == harm.would_ms is not None
    assert harm.known
    later = [row for row in compared.rows if row.would_ms and row.would_ms > retrain.was_ms]  # type: ignore[operator]
    assert not any(row.known for row in later)


def test_with_a_smaller_budget_of_alarms_the_alarm_would_have_come_later(lived: Lived) -> None:
    was = of_outputs(lived.outputs)
    respecify = by_overrides(["budget.false_alarms_per_month=0.000001"])
    budget = respecify(SPEC).budget
    would = of_outputs(lived.again(lived.adoptions, budget=budget))
    first = [
        min(alert.opened_ms for alert in verdicts.opened if alert.problem == "harm")
        for verdicts in (was, would)
    ]
    assert first[0] < first[1]


def test_a_revision_that_compaction_took_is_no_difference_and_one_that_was_never_told_is() -> None:
    def alert(revision: int) -> Alert:
        return Alert(
            alert_id="a",
            model="m",
            problem="harm",
            verdict="performance harmed",
            state="open",
            severity="critical",
            sentence="worse",
            opened_ms=0,
            updated_ms=revision,
            revision=revision,
        )

    whole = Verdicts(alerts=[alert(0), alert(1), alert(2)])
    assert not difference(Verdicts(alerts=[alert(2)]), whole)
    assert difference(Verdicts(alerts=[alert(1)]), whole).more
    assert difference(whole, Verdicts(alerts=[alert(2)])).missing


@pytest.mark.parametrize(
    "pair",
    [
        "features=[]",
        "ticks.seconds=3",
        "policy.nothing=1",
        "policy.retrain",
        "trial=x",
        "trial.to_prove=no",
    ],
)
def test_what_would_change_the_counts_or_is_no_spec_is_refused(pair: str) -> None:
    with pytest.raises(ConfigurationError):
        by_overrides([pair])(SPEC)


def test_what_a_challenger_has_to_prove_may_be_asked_otherwise(lived: Lived) -> None:
    """Beside a harmed champion it makes no difference: there it need not be better anyhow."""
    trial = by_overrides(["trial.to_prove=not worse"])(SPEC).trial
    assert trial == msgspec.structs.replace(SPEC.trial, to_prove="not worse")
    assert lived.again(lived.adoptions, trial=trial) == lived.outputs


def test_a_spec_file_may_differ_in_what_evaluate_alone_reads() -> None:
    other = msgspec.structs.replace(SPEC, policy=Policy(retrain=False), owner="else")
    assert by_spec(other, SPEC)(SPEC) == msgspec.structs.replace(other, owner="")
    longer = msgspec.structs.replace(other, ticks=Ticks(seconds=1))
    with pytest.raises(ConfigurationError, match="ticks"):
        by_spec(longer, SPEC)


def test_a_generation_that_nobody_knows_any_more_is_an_error_that_says_so() -> None:
    state = LifecycleChanged(model="bikes", generation=3, spec=SPEC, spec_revision=1, changed_ms=50)
    known = {("bikes", 3): state}
    assert complete(known, [("bikes", 3)], None) == known
    with pytest.raises(ConfigurationError, match="generation 2 of bikes"):
        complete(known, [("bikes", 2)], None)
    assert in_force(known, 49) == {}
    assert in_force(known, 50) == {"bikes": 3}


def some_monitor() -> tuple[ModelSpec, list[Record], list[Record]]:
    """A hundred predictions with their labels, as they lie in one partition."""
    predictions = [
        Record(
            n,
            monitoring.T0 + 100 * n,
            b"p%d" % n,
            b'{"prediction_id":"p%d","model":"churn","version":1,"output":0.8,'
            b'"features":{"age":%d.0,"plan":"a"}}' % (n, n % 40),
        )
        for n in range(100)
    ]
    feedback = [
        Record(
            one.offset,
            one.timestamp_ms,
            one.key,
            b'{"prediction_id":"p%d","model":"churn","label":"yes"}' % one.offset,
        )
        for one in predictions
    ]
    return monitoring.SPEC, predictions, feedback


def test_the_journal_of_monitor_folded_again_gives_the_summaries_that_lie_there() -> None:
    spec, predictions, feedback = some_monitor()
    logs = {"predictions": predictions, "feedback": feedback}
    context = Context(0, {"predictions": 1, "feedback": 1, "summaries": 1}, CoreSettings())
    live = monitoring.Live(spec)
    reports = [
        ProgressReported(
            partition=0,
            partitions=1,
            sequence=n,
            watermark_ms=0,
            clock_ms=monitoring.T0 + 1_000 * (n + 1),
            caught_up=True,
            applied=[
                Applied(
                    entity=entity,
                    first=10 * n,
                    end=10 * n + 10,
                    generations={"churn": 1} if (n, entity) == (0, "predictions") else {},
                )
                for entity in logs
            ],
        )
        for n in range(10)
    ]

    def told() -> list[list[bytes]]:
        made = counted(
            context,
            reports,
            lambda run: logs[run.entity][run.first : run.end],
            lambda model, generation: live,
            {},
        )
        return [[o.value or b"" for o in outs if o.entity == "summaries"] for outs in made]

    once = told()
    keys = {b"tick": b"churn", b"watermark_ms": None}
    lying = [
        Record(3 * n, 0, next(k for word, k in keys.items() if word in value), value)
        for n, value in enumerate(value for values in once for value in values)
    ]
    journal = read_journal(lying, "churn", 2**20)
    assert journal.is_complete
    assert journal.generations == {("churn", 1)}
    laid = laid_out(journal, {0: told()})
    assert laid.records == lying == journal.recorded
    assert laid.same == laid.made == len(lying)
    other = laid_out(journal, {0: [[values[-1]] for values in once]})  # without any delta
    assert (other.made, other.same) == (10, 0)
    assert [one.offset for one in other.records] == [r.record.offset for r in journal.reports[0]]
