"""Every metric that Driftline exports, and those of a stage.

They are read when they are scraped, so there is nothing to pay per record. Labels are bounded:
partitions, words from the code, and of models in a partition the twenty that matter most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.core.busy import MOST_NAMED, OTHERS
from stream.health import Health
from stream.runtime import Keeper, Runtime

Labels = dict[str, str]


class Told(NamedTuple):
    """One metric, as it is exported; counters end in `_total`."""

    name: str
    labels: tuple[str, ...]
    help: str

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        return "counter" if self.name.endswith("_total") else "gauge"


_PARTITION: Final = ("stage", "partition")
_INPUT: Final = (*_PARTITION, "entity")
_MODEL: Final = (*_PARTITION, "model")  # those that take most; the rest together

#: The stages'. docs/OPERATIONS.md shows these, and a test holds it and what is exported to them.
STAGE_METRICS: Final = (
    Told("driftline_ready", ("stage",), "1 when /readyz says so"),
    Told("driftline_broker_away_seconds", ("stage",), "since the broker last answered; 0: it does"),
    Told("driftline_lag_records", _INPUT, "offsets that could be applied and are not"),
    Told("driftline_held_up_records", _INPUT, "offsets that others' open transactions hold back"),
    Told("driftline_held_up_seconds", _INPUT, "for how long they have held back the same ones"),
    Told("driftline_retention_headroom_records", _INPUT, "offsets between the log's start and us"),
    Told("driftline_overtaken_records", _INPUT, "offsets that retention took before we came"),
    Told("driftline_lost_to_retention_records_total", _INPUT, "of those, skipped for ever"),
    Told("driftline_phase_seconds", (*_PARTITION, "phase"), "what the partition is at, how long"),
    Told("driftline_restore_seconds", _PARTITION, "how long its last restore took"),
    Told(
        "driftline_waiting",
        (*_PARTITION, "what"),
        "pending, early, parked, put-off records",
    ),
    Told("driftline_model_seconds_total", _MODEL, "spent on predicting with its versions"),
    Told("driftline_model_waiting", _MODEL, "requests of a slow model, put off for others"),
    Told("driftline_partition_records_total", _PARTITION, "records applied"),
    Told("driftline_partition_outputs_total", _PARTITION, "records written"),
    Told("driftline_partition_commits_total", _PARTITION, "transactions with something of it"),
    Told("driftline_partition_commit_seconds_total", _PARTITION, "how long they took"),
    Told("driftline_events_total", (*_PARTITION, "event"), "what came of records, by name"),
    Told("driftline_refused_total", (*_PARTITION, "reason"), "dead letters (evaluate: dropped)"),
    Told("driftline_rerouted_total", _INPUT, "sent on to the right partition"),
    Told("driftline_published_total", (*_PARTITION, "kind"), "facts, alerts, commands of evaluate"),
    Told("driftline_dropped_total", (*_PARTITION, "reason"), "summaries that nobody could take"),
    Told("driftline_unjudged_total", (*_PARTITION, "reason"), "ticks of a champion not judged"),
    Told("driftline_runtime_assignments_total", ("stage",), "times the group decided anew"),
    Told("driftline_runtime_fences_total", ("stage",), "partitions that another process took"),
    Told("driftline_runtime_late_revocations_total", ("stage",), "flushes too slow for one"),
)
TRAINER_METRICS: Final = (
    Told("driftline_trainer_ready", (), "1 when /readyz says so"),
    Told("driftline_trainer_commands_total", ("kind", "outcome"), "commands taken"),
    Told("driftline_trainer_fits_running", (), "fits in child processes"),
    Told("driftline_trainer_fits_waiting", (), "retrains that wait for their turn"),
    Told("driftline_trainer_fits_total", ("verdict",), "fits that ended"),
    Told("driftline_trainer_outbox_pending", (), "changes that are not published yet"),
    Told("driftline_trainer_outbox_age_seconds", (), "for how long there have been some"),
    Told("driftline_trainer_relayed_total", (), "changes published on lifecycle"),
)
#: Of the service that sends alerts on. Sinks are named in its configuration, and 50 at most.
ALERTS_METRICS: Final = (
    Told("driftline_alerts_ready", (), "1 when /readyz says so"),
    Told("driftline_alerts_delivered_total", ("sink",), "alerts that the sink took"),
    Told("driftline_alerts_retried_total", ("sink",), "attempts after the first"),
    Told("driftline_alerts_failed_total", ("sink", "why"), "attempts that came to nothing"),
    Told("driftline_alerts_dead_lettered_total", ("sink",), "alerts laid down as dead letters"),
    Told("driftline_alerts_skipped_total", ("sink", "why"), "filtered out, known already, none"),
    Told("driftline_alerts_waiting", ("sink",), "alerts that wait for their delivery"),
    Told("driftline_alerts_waiting_seconds", ("sink",), "for how long the oldest has"),
)
CONSOLE_METRICS: Final = (
    Told("driftline_console_ready", (), "1 while it follows the topics"),
    Told("driftline_console_read_total", (), "records read"),
    Told("driftline_console_refused_total", (), "of them, no events of their topic"),
    Told("driftline_console_streams", (), "open pages that are told of changes"),
)
METRICS: Final = {
    told.name: told
    for told in (*STAGE_METRICS, *TRAINER_METRICS, *ALERTS_METRICS, *CONSOLE_METRICS)
}
#: A processor's counter `<name>:<label>` is the metric `driftline_<name>_total` with this label.
_LABELLED: Final = {
    "refused": "reason",
    "rerouted": "entity",
    "dropped": "reason",
    "unjudged": "reason",
}


class Families:
    """Samples, gathered by metric."""

    def __init__(self) -> None:
        self._found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """One sample of a metric that is in the table, with the labels that it has there."""
        told = METRICS[name]
        family = self._found.get(name)
        if family is None:
            kind = CounterMetricFamily if told.kind == "counter" else GaugeMetricFamily
            plain = name.removesuffix("_total")
            family = self._found[name] = kind(plain, told.help, labels=list(told.labels))
        family.add_metric([labels[label] for label in told.labels], value)

    def __iter__(self) -> Iterator[Metric]:
        yield from self._found.values()


class StageCollector(Collector):
    """`STAGE_METRICS` of one process."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        health, families = self._health, Families()
        stage = health.stage
        families.add("driftline_ready", not health.ready(), stage=stage)
        families.add("driftline_broker_away_seconds", health.away_seconds, stage=stage)
        if health.runtime is not None:
            _process(families, stage, health.runtime)
            for keeper in list(health.runtime.keepers.values()):
                _keeper(families, stage, keeper)
        for (number, entity), seen in health.inputs.items():
            where = {"stage": stage, "partition": str(number), "entity": entity}
            families.add("driftline_lag_records", seen.lag, **where)
            families.add("driftline_held_up_records", seen.held_up, **where)
            families.add("driftline_held_up_seconds", seen.held_up_seconds, **where)
            families.add("driftline_retention_headroom_records", seen.headroom, **where)
            families.add("driftline_overtaken_records", seen.lost, **where)
        yield from families


def _process(families: Families, stage: str, runtime: Runtime) -> None:
    for name in ("assignments", "fences", "late_revocations"):
        families.add(f"driftline_runtime_{name}_total", runtime.counts[name], stage=stage)


def _keeper(families: Families, stage: str, keeper: Keeper) -> None:
    where: Labels = {"stage": stage, "partition": str(keeper.number)}
    families.add("driftline_phase_seconds", keeper.phase_seconds, phase=keeper.at[0], **where)
    families.add("driftline_restore_seconds", keeper.restore_seconds, **where)
    partition = keeper.partition
    if partition is None:
        return
    counts = partition.counts
    for name in ("records", "outputs", "commits"):
        families.add(f"driftline_partition_{name}_total", counts[name], **where)
    seconds = counts["commit_us"] / 1e6
    families.add("driftline_partition_commit_seconds_total", seconds, **where)
    for entity in partition.positions:
        lost = counts[f"lost:{entity}"]
        name = "driftline_lost_to_retention_records_total"
        families.add(name, lost, entity=entity, **where)
    _processor(families, where, partition.processor.counters)
    for what, count in getattr(partition.processor, "gauges", {}).items():
        families.add("driftline_waiting", count, what=what, **where)
    for model, seconds in dict(getattr(partition.processor, "model_seconds", {})).items():
        families.add("driftline_model_seconds_total", seconds, model=model, **where)
    for model, count in _largest(getattr(partition.processor, "model_backlog", {})).items():
        families.add("driftline_model_waiting", count, model=model, **where)


def _largest(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts by name, and the rest together."""
    ordered = sorted(dict(counts).items(), key=lambda item: -item[1])
    rest = sum(count for _, count in ordered[MOST_NAMED:])
    return dict(ordered[:MOST_NAMED]) | ({OTHERS: rest} if rest else {})


def _processor(families: Families, where: Labels, counters: Mapping[str, int]) -> None:
    for name, count in dict(counters).items():
        plain, _, label = name.partition(":")
        if label:
            told = {_LABELLED[plain]: label}
            families.add(f"driftline_{plain}_total", count, **told, **where)
        elif "." in name:
            families.add("driftline_published_total", count, kind=name, **where)
        else:
            families.add("driftline_events_total", count, event=name, **where)


def registry(health: Health) -> CollectorRegistry:
    """All that a stage's process exports."""
    return registry_of(StageCollector(health))


def registry_of(collector: Collector) -> CollectorRegistry:
    """What one collector tells, and what the process itself takes."""
    made = CollectorRegistry(auto_describe=False)
    made.register(collector)
    ProcessCollector(registry=made)
    return made
