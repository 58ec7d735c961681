"""What each service may do on the broker, and nothing else: one table.

`driftline topics acls` prints it, `deploy/acls.sh` is that print for the default prefix, and
tests/kafka/test_security.py runs the whole loop with exactly these rights. A right to read or to
write a topic holds the right to describe it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from consumers.loop import BrokerError, log
from stream.settings import Settings
from stream.topics import (
    BRIDGE_GROUP,
    EVERY_STAGE,
    INPUTS,
    OUTPUTS,
    READER_GROUP,
    RELAY,
    SINK_GROUPS,
    TAIL_GROUP,
    TOPICS,
    TRAINER_GROUP,
    Names,
    Stage,
)

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Describe", "Create", "DescribeConfigs", "AlterConfigs"]

TIMEOUT_SECONDS = 15.0
REFUSALS: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # a topic that one may not see
)
PRINCIPAL: Final = "User:{prefix}-{service}"
DEAD: Final = tuple(topic.entity for topic in TOPICS if topic.entity.endswith(".dlq"))


@dataclass(frozen=True)
class Rights:
    """One service's rights, by entity of the topic and role of the group.

    Attributes:
        meaning: what runs under this principal.
        joins: the role of its group, or what its groups' roles begin with.
        sees: groups that are only looked at: offsets, lag; a dot at the end: those that begin so.
        transactions: transactional ids, after the prefix; those of stages begin with what is said.
        everywhere: operations on all topics of the prefix.
    """

    meaning: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    joins: str = ""
    sees: tuple[str, ...] = ()
    transactions: str = ""
    everywhere: tuple[Operation, ...] = ()


def _stage(stage: Stage) -> Rights:
    return Rights(
        f"driftline worker --stages {stage}",
        reads=(*INPUTS[stage], "lifecycle", f"checkpoints.{stage}"),
        writes=(*OUTPUTS[stage], f"checkpoints.{stage}"),
        joins=stage,
        sees=(TAIL_GROUP,),
        transactions=f"{stage}.",
    )


TABLE: Final[dict[str, Rights]] = {
    **{stage: _stage(stage) for stage in EVERY_STAGE},
    "trainer": Rights(
        "driftline trainer",
        reads=("commands", "examples", "predictions"),
        writes=("lifecycle", "alerts", "commands.dlq"),
        joins=TRAINER_GROUP,
        sees=(READER_GROUP,),
        transactions=RELAY,
    ),
    "alerts": Rights(
        "driftline alerts: sends alerts on",
        reads=("alerts",),
        writes=("alerts.dlq",),
        joins=SINK_GROUPS,
    ),
    "bridge": Rights(
        "driftline bridge; beside this, Read on the topic that servers log to",
        reads=("lifecycle",),
        writes=(
            *("requests", "predictions", "feedback"),
            *("requests.dlq", "predictions.dlq", "feedback.dlq"),
        ),
        joins=BRIDGE_GROUP,
        sees=(READER_GROUP,),
    ),
    "producer": Rights(
        "what asks for predictions and knows the truth: requests, feedback",
        writes=("requests", "feedback"),
    ),
    "scorer": Rights(
        "a service that scores by itself: predictions, feedback", writes=("predictions", "feedback")
    ),
    "reader": Rights(
        "driftline status, doctor, tail, and what subscribes to verdicts; no one's features",
        reads=("accuracy", "drift", "alerts", "commands", "decisions", "lifecycle", "summaries"),
        sees=(READER_GROUP, TRAINER_GROUP, SINK_GROUPS, *EVERY_STAGE),
        everywhere=("Describe", "DescribeConfigs"),
    ),
    "console": Rights(
        "driftline console: every event whole, and what people decide in it",
        reads=(
            *("accuracy", "drift", "alerts", "commands", "decisions", "lifecycle", "summaries"),
            *("requests", "predictions", "feedback", "examples", *DEAD),
        ),
        writes=("lifecycle", "summaries"),
        sees=(READER_GROUP, TRAINER_GROUP, *EVERY_STAGE),
        transactions=RELAY,
    ),
    "operator": Rights(
        "people at the command line: driftline models, alerts, publish, dlq, erase, replay",
        # Predictions and labels: a reference from a live period, history proved by what was said,
        # a past range folded again.
        reads=(
            *(*DEAD, "alerts", "lifecycle", "predictions", "feedback"),
            *("summaries", "commands", "decisions"),
        ),
        writes=("lifecycle", "summaries", "requests", "predictions", "feedback"),
        sees=(READER_GROUP,),
        transactions=RELAY,
    ),
    "admin": Rights(
        "driftline topics apply, once",
        everywhere=("Create", "Describe", "DescribeConfigs", "AlterConfigs"),
    ),
}


class Acl(NamedTuple):
    """One rule: this principal may do these operations on this resource, from anywhere."""

    service: str
    principal: str
    resource: Resource
    name: str
    prefixed: bool
    operations: tuple[Operation, ...]


def listing(names: Names, principal: str = PRINCIPAL) -> list[Acl]:
    """Every rule, by service.

    Args:
        principal: with {prefix} and {service}, such as "User:CN={service},O=Acme".
    """
    return [
        Acl(service, principal.format(prefix=names.prefix, service=service), *rule)
        for service, rights in TABLE.items()
        for rule in _rules(rights, names)
    ]


def _rules(
    rights: Rights, names: Names
) -> Iterator[tuple[Resource, str, bool, tuple[Operation, ...]]]:
    for entity in dict.fromkeys((*rights.reads, *rights.writes)):
        operations: tuple[Operation, ...] = (
            *(("Read",) if entity in rights.reads else ()),
            *(("Write",) if entity in rights.writes else ()),
        )
        yield "topic", names.topic(entity), False, operations
    if rights.everywhere:
        yield "topic", f"{names.prefix}.", True, rights.everywhere
    if rights.joins:
        yield "group", names.group(rights.joins), rights.joins.endswith("."), ("Read",)
    for role in rights.sees:
        yield "group", names.group(role), role.endswith("."), ("Describe",)
    if rights.transactions:
        name = f"{names.prefix}.{rights.transactions}"
        yield "transactional-id", name, name.endswith("."), ("Write", "Describe")


class Lack(NamedTuple):
    """Operations that a service needs on a resource and this principal may not do."""

    resource: Resource
    name: str
    operations: tuple[str, ...]


def lacking(settings: Settings, service: str) -> list[Lack]:
    """What whoever these settings log in as may not do of what a service must.

    Topics and groups; the broker tells nobody about transactional ids.

    Raises:
        BrokerError: the broker does not answer.
    """
    admin = AdminClient(settings.client(), logger=log)
    found = []
    for resource, name, prefixed, operations in _rules(TABLE[service], settings.names):
        if resource == "transactional-id":
            continue
        names = [f"{name}any" if prefixed else name]  # a group that begins so
        if prefixed and resource == "topic":
            names = [settings.names.topic(topic.entity) for topic in TOPICS]
        for one in names:
            allowed = _allowed(admin, resource, one)
            missing = tuple(op for op in operations if _operation(op) not in allowed)
            if missing:
                found.append(Lack(resource, one, missing))
    return found


def _allowed(admin: Any, resource: Resource, name: str) -> set[AclOperation]:
    """What this principal may do there; nothing where it may not even ask."""
    asked: dict[str, Any] = {
        "include_authorized_operations": True,
        "request_timeout": TIMEOUT_SECONDS,
    }
    if resource == "topic":
        [answer] = admin.describe_topics(TopicCollection([name]), **asked).values()
    else:
        [answer] = admin.describe_consumer_groups([name], **asked).values()
    try:
        return set(answer.result(timeout=TIMEOUT_SECONDS).authorized_operations or ())
    except KafkaException as error:
        if error.args[0].code() in REFUSALS:
            return set()
        raise BrokerError(f"{name}: {error.args[0].str()}") from error


def _operation(name: str) -> AclOperation:
    snake = {"DescribeConfigs": "DESCRIBE_CONFIGS", "AlterConfigs": "ALTER_CONFIGS"}
    return AclOperation[snake.get(name, name.upper())]


def commands(names: Names, principal: str = PRINCIPAL) -> Iterator[str]:
    """The table as lines for a shell: `$KAFKA_ACLS` is kafka-acls.sh with how to connect."""
    service = ""
    for acl in listing(names, principal):
        if acl.service != service:
            service = acl.service
            yield f"\n# {service}: {TABLE[service].meaning}"
        words = ["--add", "--allow-principal", acl.principal]
        words += [word for operation in acl.operations for word in ("--operation", operation)]
        words += [f"--{acl.resource}", acl.name]
        words += ["--resource-pattern-type", "prefixed"] if acl.prefixed else []
        yield f"$KAFKA_ACLS {shlex.join(words)}"


def bindings(acls: list[Acl]) -> list[Any]:
    """The same for an AdminClient, one for each operation."""
    kinds = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }
    return [
        AclBinding(
            kinds[acl.resource],
            acl.name,
            ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
            acl.principal,
            "*",
            _operation(operation),
            AclPermissionType.ALLOW,
        )
        for acl in acls
        for operation in acl.operations
    ]


def apply(settings: Settings, acls: list[Acl]) -> int:
    """Give these rights; none is taken away. Safe to repeat. Returns the number of rules.

    Raises:
        BrokerError: the broker does not answer, has no authorizer, or this principal may not.
    """
    admin = AdminClient(settings.client(), logger=log)
    wanted = bindings(acls)
    for binding, answer in admin.create_acls(wanted, request_timeout=TIMEOUT_SECONDS).items():
        try:
            answer.result(timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            raise BrokerError(
                f"{binding.principal} on {binding.name}: {error.args[0].str()}; "
                "the broker needs an authorizer, and this principal the right Alter on the cluster"
            ) from error
    return len(wanted)
