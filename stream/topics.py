"""Every durable name, written by hand in one place: topics, groups, transactional ids, headers.

Renaming anything here moves state or breaks a subscriber: it is a breaking change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Stage = Literal["score", "monitor", "evaluate", "shadow"]
STAGES: Final[tuple[Stage, ...]] = ("score", "monitor", "evaluate")
#: With the one that only models need which are served elsewhere.
EVERY_STAGE: Final[tuple[Stage, ...]] = (*STAGES, "shadow")


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table of topics.

    Attributes:
        entity: the short name, used in code, metrics and settings.
        key: what the record key is.
        compacted: the newest record of a key is kept for ever.
        open: written by producers outside Driftline, so large and hostile values must be expected.
        joined: has the same partition count as `predictions`.
    """

    entity: str
    key: str
    compacted: bool = False
    open: bool = False
    joined: bool = False


TOPICS: Final = (
    Topic("requests", key="prediction_id", open=True),
    Topic("predictions", key="prediction_id", open=True, joined=True),
    Topic("feedback", key="prediction_id", open=True, joined=True),
    Topic("examples", key="model", joined=True),
    Topic("summaries", key="model"),
    Topic("accuracy", key="model"),
    Topic("drift", key="model"),
    Topic("alerts", key="alert_id", compacted=True),
    Topic("commands", key="model"),
    Topic("decisions", key="model"),
    Topic("lifecycle", key="model", compacted=True),
    Topic("checkpoints.score", key="part", compacted=True),
    Topic("checkpoints.monitor", key="part", compacted=True),
    Topic("checkpoints.evaluate", key="part", compacted=True),
    Topic("checkpoints.shadow", key="part", compacted=True),
    Topic("requests.dlq", key="the original key"),
    Topic("predictions.dlq", key="the original key"),
    Topic("feedback.dlq", key="the original key"),
    Topic("commands.dlq", key="the original key"),
    Topic("alerts.dlq", key="the original key"),
)
BY_ENTITY: Final = {topic.entity: topic for topic in TOPICS}

# What each stage reads. The topics of one stage are co-partitioned.
INPUTS: Final[dict[Stage, tuple[str, ...]]] = {
    "score": ("requests",),
    "monitor": ("predictions", "feedback"),
    "evaluate": ("summaries",),
    "shadow": ("predictions",),
}

# What each stage writes, beside its checkpoint. Score counts in summaries what it refused; monitor
# sends on what producers put elsewhere; every stage alerts to what it could not load.
OUTPUTS: Final[dict[Stage, tuple[str, ...]]] = {
    "score": ("predictions", "requests.dlq", "summaries", "alerts"),
    "monitor": (
        *("examples", "summaries", "predictions", "feedback"),
        *("predictions.dlq", "feedback.dlq", "alerts"),
    ),
    "evaluate": ("accuracy", "drift", "alerts", "commands", "decisions"),
    "shadow": ("predictions", "alerts"),
}

# Headers that Driftline writes. CloudEvents' own are `ce_<attribute>` and `content-type`.
HEADER_REROUTED: Final = "dl_rerouted"  # partition a record came from; it is re-routed once
HEADER_REASON: Final = "dl_reason"
HEADER_DETAIL: Final = "dl_detail"
HEADER_TOPIC: Final = "dl_topic"
HEADER_PARTITION: Final = "dl_partition"
HEADER_OFFSET: Final = "dl_offset"
HEADER_TIMESTAMP: Final = "dl_timestamp_ms"
HEADER_STAGE: Final = "dl_stage"
BRIDGE: Final = "bridge"  # as `dl_stage`
HEADER_SOURCE: Final = "dl_source"  # the topic of somebody else's that the bridge read it from

TRAINER_GROUP: Final = "trainer"
BRIDGE_GROUP: Final = "bridge"
SINK_GROUPS: Final = "alerts."  # and the sink's name: each sink has its own progress
TAIL_GROUP: Final = "tail"  # carried, never joined, by what follows lifecycle
READER_GROUP: Final = "reader"  # carried, never joined, by what reads spans
RELAY: Final = (
    "relay"  # the one transactional id that writes lifecycle: a newer relay fences the older
)


@dataclass(frozen=True, slots=True)
class Names:
    """Full names under one prefix.

    >>> Names("driftline").topic("feedback.dlq")
    'driftline.feedback.v1.dlq'
    >>> Names("driftline").entity("driftline.checkpoints.score.v1")
    'checkpoints.score'
    >>> Names("acme").worker_id("monitor", "5d41"), Names("acme").former_id("monitor", 3)
    ('acme.monitor.worker-5d41', 'acme.monitor.3')
    """

    prefix: str = "driftline"

    def topic(self, entity: str) -> str:
        if entity not in BY_ENTITY:
            raise KeyError(f"no topic for {entity!r}; there are {', '.join(BY_ENTITY)}")
        stem = entity.removesuffix(".dlq")
        return f"{self.prefix}.{stem}.v1{entity[len(stem) :]}"

    def entity(self, topic: str) -> str:
        return self._entities()[topic]

    def _entities(self) -> dict[str, str]:
        return {self.topic(entity): entity for entity in BY_ENTITY}

    def group(self, role: str) -> str:
        return f"{self.prefix}.{role}"

    def worker_id(self, stage: Stage, unique: str) -> str:
        """Transactional id of one worker process, and what its consumer calls itself."""
        return f"{self.prefix}.{stage}.worker-{unique}"

    def former_id(self, stage: Stage, partition: int) -> str:
        """Transactional id that workers of release 0.1 hold for each partition they own."""
        return f"{self.prefix}.{stage}.{partition}"

    @property
    def relay_id(self) -> str:
        return f"{self.prefix}.{RELAY}"

    def checkpoints(self, stage: Stage) -> str:
        return self.topic(f"checkpoints.{stage}")

    def touched(self, stage: Stage) -> dict[str, str]:
        """Every topic that a stage reads or writes: full name -> entity."""
        around = (*INPUTS[stage], *OUTPUTS[stage], f"checkpoints.{stage}", "lifecycle")
        return {self.topic(entity): entity for entity in around}

    def inputs(self, stage: Stage) -> tuple[str, ...]:
        return tuple(self.topic(entity) for entity in INPUTS[stage])
