"""The topics and their events as an AsyncAPI 3 document, from the tables of the contract."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

import msgspec
from msgspec import Struct

from stream.events import DEFAULT_TYPES, EVENT_TYPES
from stream.topics import (
    BY_ENTITY,
    HEADER_DETAIL,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_REASON,
    HEADER_REROUTED,
    HEADER_SOURCE,
    HEADER_STAGE,
    HEADER_TIMESTAMP,
    HEADER_TOPIC,
    Names,
    Topic,
)

SPEC: Final = "3.0.0"
SCHEMAS: Final = "#/components/schemas/"
#: What is a topic to be written by others, and what is there to be subscribed to.
STATE: Final = ("checkpoints.", "summaries", "examples")
DEAD_HEADERS: Final = {
    HEADER_REASON: "why, in a word of `stream.errors.REASONS`",
    HEADER_DETAIL: "why, in a sentence",
    HEADER_TOPIC: "where it lay",
    HEADER_PARTITION: "where it lay",
    HEADER_OFFSET: "where it lay",
    HEADER_TIMESTAMP: "its own, in milliseconds since 1970",
    HEADER_STAGE: "who refused it",
    HEADER_SOURCE: "the topic that the bridge read it from",
}
ATTRIBUTES: Final = {
    "ce_specversion": "1.0",
    "ce_id": "doubles have the same",
    "ce_source": "who says so",
    "ce_type": "what happened",
    "ce_time": "when, by RFC 3339; without it: the record's timestamp",
    "traceparent": "W3C's, handed on",
    HEADER_REROUTED: "the partition that it was sent on from; written by Driftline",
}


def document() -> dict[str, Any]:
    """The document as plain data; topics by their default prefix."""
    channels = {_key(topic): _channel(topic) for topic in BY_ENTITY.values() if _public(topic)}
    return {
        "asyncapi": SPEC,
        "info": {
            "title": "Driftline",
            "version": version("driftline"),
            "license": {"name": "Apache-2.0"},
            "description": "Predictions and late labels in; accuracy, drift, alerts and what is "
            "live out. Every record is JSON: a CloudEvent in structured mode, in binary mode, or, "
            "where a topic has a default type, its data alone.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            f"{'send' if topic.open else 'receive'}.{_key(topic)}": _operation(topic)
            for topic in BY_ENTITY.values()
            if _public(topic)
        },
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _public(topic: Topic) -> bool:
    return not topic.entity.startswith(STATE)


def _key(topic: Topic) -> str:
    return topic.entity.replace(".", "-")


def _channel(topic: Topic) -> dict[str, Any]:
    names = [_name(kind) for kind in _kinds(topic.entity)] or ["refused"]
    return {
        "address": Names().topic(topic.entity),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": Names().topic(topic.entity),
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if topic.compacted else "delete"]
                },
            }
        },
        "description": f"Keyed by {topic.key}."
        + (" A value without attributes is taken as its data." if _default(topic) else ""),
    }


def _default(topic: Topic) -> str | None:
    return DEFAULT_TYPES.get(topic.entity)


def _operation(topic: Topic) -> dict[str, Any]:
    """Seen from an application that uses Driftline."""
    return {
        "action": "send" if topic.open else "receive",
        "channel": {"$ref": f"#/channels/{_key(topic)}"},
    }


def _kinds(entity: str) -> list[str]:
    return [kind for kind, (_, topic) in EVENT_TYPES.items() if topic == entity]


def _name(kind: str) -> str:
    return kind.removeprefix("driftline.")


def _messages() -> dict[str, Any]:
    found = {
        _name(kind): _message(kind, struct)
        for kind, (struct, entity) in EVENT_TYPES.items()
        if entity in BY_ENTITY and _public(BY_ENTITY[entity])
    }
    refused = {
        "title": "A refused record, whole",
        "contentType": "application/octet-stream",
        "payload": {"description": "the bytes as they came"},
        "headers": _headers(DEAD_HEADERS),
    }
    return found | {"refused": refused}


def _message(kind: str, struct: type[Struct]) -> dict[str, Any]:
    return {
        "name": kind,
        "title": (struct.__doc__ or kind).partition("\n")[0],
        "contentType": "application/cloudevents+json",
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "minLength": 1},
                "source": {"type": "string", "minLength": 1},
                "type": {"const": kind},
                "time": {"type": "string", "format": "date-time"},
                "traceparent": {"type": "string"},
                "data": {"$ref": f"{SCHEMAS}{struct.__name__}"},
            },
        },
        "headers": _headers(ATTRIBUTES),
    }


def _headers(described: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text} for name, text in described.items()
        },
    }


def _schemas() -> dict[str, Any]:
    """Of every struct that a public topic carries, and what these are made of."""
    structs = dict.fromkeys(
        struct
        for struct, entity in EVENT_TYPES.values()
        if entity in BY_ENTITY and _public(BY_ENTITY[entity])
    )
    _, components = msgspec.json.schema_components(
        structs,
        ref_template=SCHEMAS + "{name}",
        schema_hook=lambda _: {"description": "any JSON"},  # evidence is what it is
    )
    return components
