"""Records in Confluent's wire format, as JSON: what a schema registry is asked, and how it fails.

Such a record begins with the byte 0 and the id of its schema, four bytes, big-endian; then comes
the value, JSON (JSON Schema) or Avro. The registry tells which. What it does not know makes a
record unacceptable; that it does not answer says nothing about the record.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from stream.core.processor import Record
from stream.errors import ConfigurationError, DriftlineError, Refused
from stream.settings import Settings

MAGIC: Final = b"\x00"
HEAD_BYTES: Final = 5
TIMEOUT_SECONDS: Final = 10.0
#: Of one look-up, by the library, with growing pauses; then the process ends and is started again.
RETRIES: Final = 4
UNKNOWN_SECONDS: Final = 30.0  # a schema that could not be used is asked for again after so long
MOST_KNOWN: Final = 1000
#: The registry's own words for what it does not hold: a subject, a version, a schema.
NOT_THERE: Final = frozenset({40401, 40402, 40403})

#: Times as RFC 3339, decimals as numbers; what is not a number is null.
ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

#: The bytes behind the head, as JSON.
Reader = Callable[[bytes], bytes]


class Unanswered(DriftlineError):
    """The registry does not answer, or not as one does. Nothing is lost: ask again."""


class _Known(NamedTuple):
    reader: Reader | Refused
    until: float


class Schemas:
    """Reads records by the schemas of one registry; each is asked for once.

    Args:
        clock: seconds, monotonic.

    Raises:
        ConfigurationError: the extra `schemas` is not installed, or the settings are no registry's.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = _client(settings)
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def __call__(self, record: Record) -> Record:
        """The record with its value as JSON; as it came, if it is not in the wire format.

        Raises:
            Refused: bad-schema, bad-data.
            Unanswered: the registry cannot be asked.
        """
        if not record.value or not record.value.startswith(MAGIC):
            return record
        if len(record.value) < HEAD_BYTES:
            raise Refused("bad-schema", "the record ends within the schema's id")
        reader = self._reader(int.from_bytes(record.value[1:HEAD_BYTES], "big"))
        return record._replace(value=reader(record.value[HEAD_BYTES:]))

    def _reader(self, schema_id: int) -> Reader:
        now, known = self._clock(), self._known.get(schema_id)
        if known is None or known.until < now:
            if len(self._known) >= MOST_KNOWN:  # ids that somebody made up
                self._known.clear()
            known = self._asked(schema_id, now)
            self._known[schema_id] = known
        if isinstance(known.reader, Refused):
            raise known.reader.bare()
        return known.reader

    def _asked(self, schema_id: int, now: float) -> _Known:
        try:
            schema = self._fetch(f"schema {schema_id}", self._client.get_schema, schema_id)
            return _Known(self._made(schema_id, schema), float("inf"))
        except Refused as refused:
            return _Known(refused, now + UNKNOWN_SECONDS)

    def _fetch(self, what: str, ask: Callable[..., Any], *arguments: object) -> Any:
        from confluent_kafka.schema_registry import SchemaRegistryError
        from httpx2 import HTTPError

        try:
            schema = ask(*arguments)
            if not schema.schema_str:
                self._client.clear_caches()  # it would not ask again
                raise ValueError("no schema in the answer")
        except SchemaRegistryError as error:
            if error.error_code in NOT_THERE:
                raise Refused("bad-schema", f"the registry knows no {what}") from error
            raise Unanswered(f"schema registry, {what}: {error}") from error
        except (HTTPError, ValueError, TypeError, AttributeError, KeyError) as error:
            # The library's answer to what is no registry's: an error of whatever it tripped over.
            raise Unanswered(f"schema registry, {what}: {error!r}") from error
        return schema

    def _made(self, schema_id: int, schema: Any) -> Reader:
        if schema.schema_type == "JSON":
            return bytes
        if schema.schema_type != "AVRO":
            raise Refused("bad-schema", f"schema {schema_id} is {schema.schema_type}: not read")
        named: dict[str, Any] = {}
        self._refer(schema, named, set())
        return _avro(_parsed(f"schema {schema_id}", schema.schema_str, named))

    def _refer(self, schema: Any, named: dict[str, Any], seen: set[tuple[str, int]]) -> None:
        """Parse what a schema refers to, into `named`, each once: two may refer to the same."""
        for one in schema.references or ():
            place = (str(one.subject), int(one.version))
            if place in seen:
                continue
            seen.add(place)
            what = f"version {place[1]} of {place[0]}"
            referred = self._fetch(what, lambda p: self._client.get_version(*p).schema, place)
            self._refer(referred, named, seen)
            _parsed(what, referred.schema_str, named)


def reading(settings: Settings) -> Callable[[Record], Record]:
    """`Schemas`, where a registry is configured; else what says that none is."""
    return Schemas(settings) if settings.schema_registry_url else _unconfigured


def _unconfigured(record: Record) -> Record:
    if record.value and record.value.startswith(MAGIC):
        raise Refused("bad-schema", "it names a schema; set DRIFTLINE_SCHEMA_REGISTRY_URL")
    return record


def _client(settings: Settings) -> Any:
    try:
        import fastavro  # noqa: F401  asked for here, so that its absence is said at the start
        from confluent_kafka.schema_registry import SchemaRegistryClient
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed here: pip install 'driftline[schemas]'"
        ) from error
    asked: dict[str, Any] = {
        "url": settings.schema_registry_url,
        "timeout": TIMEOUT_SECONDS,
        "max.retries": RETRIES,
    }
    if settings.schema_registry_user is not None:
        password = settings.schema_registry_password
        revealed = "" if password is None else password.get_secret_value()
        asked["basic.auth.user.info"] = f"{settings.schema_registry_user}:{revealed}"
    if settings.schema_registry_ca_file is not None:
        asked["ssl.ca.location"] = settings.schema_registry_ca_file
    try:
        return SchemaRegistryClient(asked)
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"DRIFTLINE_SCHEMA_REGISTRY_URL: {error}") from error


def _parsed(what: str, text: str, named: dict[str, Any]) -> Any:
    from fastavro.schema import SchemaParseException, parse_schema

    try:
        return parse_schema(json.loads(text), named_schemas=named)
    except (SchemaParseException, ValueError, TypeError, LookupError, RecursionError) as error:
        raise Refused("bad-schema", f"{what} is no Avro schema: {error!r}") from error


def _avro(schema: Any) -> Reader:
    import fastavro

    def read(value: bytes) -> bytes:
        stream = io.BytesIO(value)
        try:
            found = fastavro.schemaless_reader(stream, schema, None)
            told = ENCODER.encode(found)
        except Exception as error:  # of the bytes: whatever its compiled reader tripped over
            raise Refused("bad-data", f"the bytes do not fit the Avro schema: {error!r}") from error
        if stream.tell() != len(value):
            raise Refused("bad-data", f"{len(value) - stream.tell()} bytes behind the Avro value")
        return told

    return read
