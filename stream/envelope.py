"""CloudEvents 1.0 on Kafka: structured mode, binary mode with headers, and plain JSON.

Written: always structured, so that nothing is lost where headers are dropped. Read: all three. A
plain JSON value without attributes is of its topic's default type, happened at the record's own
time, and has the record's place as id.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

from stream.core.processor import Headers, Record
from stream.errors import Refused
from stream.events import DEFAULT_TYPES, EVENT_TYPES

S = TypeVar("S", bound=Struct)

SPEC_VERSION = "1.0"


class Envelope(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attributes of one event. `signature` and `keyid` are room for signed events."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    traceparent: str | None = None
    signature: str | None = None
    keyid: str | None = None
    data: Raw = Raw(b"")


class Opened(NamedTuple):
    """An event as the stages see it: what it is, when it happened, its data still as bytes."""

    type: str
    id: str
    time_ms: int
    data: bytes | memoryview | Raw
    traceparent: str | None = None


class _Written(Envelope, frozen=True, kw_only=True, omit_defaults=True):
    """The same with data that are still to be encoded: one pass encodes both."""

    data: Any = None


_ENVELOPE = msgspec.json.Decoder(Envelope)
_ENCODER = msgspec.json.Encoder()
_DATA: dict[type[Struct], msgspec.json.Decoder[Any]] = {
    struct: msgspec.json.Decoder(struct) for struct, _ in EVENT_TYPES.values()
}
_TIME = msgspec.json.Decoder(datetime)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(time: datetime) -> int:
    """
    >>> to_ms(datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC))
    1500
    """
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


@lru_cache(maxsize=4096)  # events of one batch share their times
def ms_of(text: str) -> int:
    """
    >>> ms_of("1970-01-01T00:00:01.5Z")
    1500

    Raises:
        msgspec.ValidationError: it is no time by RFC 3339.
    """
    return to_ms(msgspec.convert(text, datetime))


@lru_cache(maxsize=4096)
def from_ms(time_ms: int) -> datetime:
    """
    >>> from_ms(1500).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return EPOCH + timedelta(milliseconds=time_ms)


def derived_id(*cause: object) -> str:
    """The id of a derived event: a hash of what caused it, so that doubles have the same id.

    >>> derived_id("monitor", 3, 17) == derived_id("monitor", 3, 17)
    True
    """
    return hashed("\x1f".join(map(str, cause)))


def hashed(cause: str) -> str:
    """`derived_id` of what \x1f separates."""
    return hashlib.sha256(cause.encode(), usedforsecurity=False).hexdigest()[:32]


def write(
    kind: str,
    data: Struct,
    *,
    id: str,  # noqa: A002  the attribute's name in the standard
    source: str,
    time_ms: int,
    traceparent: str | None = None,
) -> bytes:
    """One structured CloudEvent. `kind` is a type of `EVENT_TYPES` and `data` its struct."""
    struct, _ = EVENT_TYPES[kind]
    if not isinstance(data, struct):
        raise TypeError(f"{kind} carries {struct.__name__}, not {type(data).__name__}")
    return _ENCODER.encode(
        _Written(
            specversion=SPEC_VERSION,
            id=id,
            source=source,
            type=kind,
            time=from_ms(time_ms),
            datacontenttype="application/json",
            traceparent=traceparent,
            data=data,
        )
    )


def open_record(entity: str, record: Record, *, max_bytes: int) -> Opened:
    """Tell what a record is.

    Raises:
        Refused: null-value, too-large, bad-json, bad-envelope, unknown-event.
    """
    value = record.value
    if value is None:
        raise Refused("null-value", "the record has no value")
    if len(value) > max_bytes:
        raise Refused("too-large", f"{len(value)} bytes, at most {max_bytes} are accepted")
    opened = _open(entity, record, value)
    known = EVENT_TYPES.get(opened.type)
    if known is None or known[1] not in (entity, "*"):
        raise Refused("unknown-event", f"{opened.type!r} is not an event of {entity}")
    return opened


def read(opened: Opened, struct: type[S]) -> S:
    """Decode an event's data.

    Raises:
        Refused: bad-data, with the path of what is wrong.
    """
    try:
        decoded: S = _DATA[struct].decode(opened.data)
    except msgspec.ValidationError as error:
        raise Refused("bad-data", str(error)) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused("bad-json", _sentence(error)) from error
    return decoded


def _open(entity: str, record: Record, value: bytes) -> Opened:
    headers = record.headers
    if not headers:
        return _structured_or_plain(entity, record, value)
    attributes = binary_attributes(headers)
    if "specversion" in attributes:
        return _binary(record, value, attributes)
    return _structured_or_plain(entity, record, value)


def _structured_or_plain(entity: str, record: Record, value: bytes) -> Opened:
    try:
        envelope = _ENVELOPE.decode(value)
    except msgspec.ValidationError as error:
        if value.find(b'"specversion"', 0, 1000) >= 0:
            raise Refused("bad-envelope", str(error)) from error
        return _plain(entity, record, value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused("bad-json", _sentence(error)) from error
    if envelope.specversion != SPEC_VERSION:
        raise Refused("bad-envelope", f"specversion {envelope.specversion!r}, not {SPEC_VERSION!r}")
    if not envelope.data:
        raise Refused("bad-envelope", "the event has no data")
    time_ms = record.timestamp_ms if envelope.time is None else to_ms(envelope.time)
    return Opened(envelope.type, envelope.id, time_ms, envelope.data, envelope.traceparent)


def _plain(entity: str, record: Record, value: bytes) -> Opened:
    kind = DEFAULT_TYPES.get(entity)
    if kind is None:
        raise Refused("bad-envelope", f"events of {entity} need CloudEvents attributes")
    return Opened(kind, f"{entity}/{record.offset}", record.timestamp_ms, value)


def _binary(record: Record, value: bytes, attributes: dict[str, str]) -> Opened:
    missing = [name for name in ("id", "source", "type") if not attributes.get(name)]
    if missing or attributes["specversion"] != SPEC_VERSION:
        what = f"no ce_{missing[0]}" if missing else f"specversion {attributes['specversion']!r}"
        raise Refused("bad-envelope", f"binary-mode headers: {what}")
    time_ms = record.timestamp_ms
    if attributes.get("time"):
        try:
            time_ms = to_ms(_TIME.decode(_ENCODER.encode(attributes["time"])))
        except msgspec.DecodeError as error:
            raise Refused("bad-envelope", f"ce_time {attributes['time'][:40]!r}") from error
    return Opened(
        attributes["type"], attributes["id"], time_ms, value, attributes.get("traceparent")
    )


def binary_attributes(headers: Headers) -> dict[str, str]:
    """What `ce_` headers say, without the prefix, and `traceparent`.

    Raises:
        Refused: bad-envelope: not UTF-8.
    """
    try:
        attributes = {
            name[3:]: value.decode() for name, value in headers if name.startswith("ce_") and value
        }
        traceparent = next((v.decode() for n, v in headers if n == "traceparent" and v), None)
    except UnicodeDecodeError as error:
        raise Refused("bad-envelope", "a ce_ header is not UTF-8") from error
    return attributes | ({"traceparent": traceparent} if traceparent else {})


def _sentence(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
