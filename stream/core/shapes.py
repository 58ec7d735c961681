"""Decoders made for one model: its features as fields of a struct, checked while they are parsed.

A generated type derives from the event's own (`PredictionRequested`, ...) and narrows it:
`features` becomes a struct with exactly the spec's features, the optional ones null where they are
left out, `output` what the task allows.
Decoding one is twice as fast as decoding into a dict and checking that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, defstruct

from models.features import MAX_TEXT, Row, Value, category_text
from models.losses import MAX_VALUE
from models.spec import Feature, ModelSpec
from stream.envelope import SPEC_VERSION, Envelope
from stream.events import DEFAULT_TYPES, EVENT_TYPES

Category = Annotated[str, Meta(max_length=MAX_TEXT)] | bool | int | float | None
Probability = Annotated[float, Meta(ge=0, le=1)]
Real = Annotated[float, Meta(ge=-MAX_VALUE, le=MAX_VALUE)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
TimeText = Annotated[str, Meta(max_length=64)]  # one that is longer is read, but not remembered
VersionText = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,9}$")]
MAX_SHADOWS = 16
T = TypeVar("T")
BROKEN = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)  # what decoders raise
_ATTRIBUTE = b"specversion"
_ESCAPE = ord("\\")


class Same(Generic[T]):
    """A key that is equal for the very same thing only: hashing a spec's or a fleet's fields would
    take longer than decoding a record. Neither is changed in place; both are replaced."""

    __slots__ = ("thing",)

    def __init__(self, thing: T) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.thing is other.thing


class Shape(NamedTuple):
    """How one model's events of one entity are read.

    Attributes:
        structured: the whole CloudEvent, data included, in one pass. Its time is still text: few of
            a batch differ.
        data: the data alone: a plain value, or one with binary-mode headers.
        features: of requests: what `features` of many events, in JSON lists, hold. `structured` and
            `data` leave them as text, which score hands on as it came.
        strict: of requests: the data with its features, for the reason of a refusal.
        strict_structured: of requests: the whole CloudEvent with its features.
        categorical: places of categorical features.
        outputs: floats that a prediction has.
    """

    structured: msgspec.json.Decoder[Any]
    data: msgspec.json.Decoder[Any]
    features: msgspec.json.Decoder[Any] | None
    strict: msgspec.json.Decoder[Any] | None
    strict_structured: msgspec.json.Decoder[Any] | None
    categorical: tuple[int, ...]
    outputs: int

    def misfit(self, value: bytes, *, plain: bool) -> Exception | None:
        """What its decoder says against a record's value, features and all; None if nothing.

        Args:
            plain: the data alone, not the whole CloudEvent.
        """
        if plain:
            decoder = self.strict or self.data
        else:
            decoder = self.strict_structured or self.structured
        try:
            decoder.decode(value)
        except BROKEN as error:
            return error.with_traceback(None)  # its frames would hold it, and the whole batch
        return None

    def features_of(self, data: Sequence[Any]) -> list[Any]:
        """Generated structs, one for each event.

        Raises:
            msgspec.DecodeError, RecursionError, UnicodeDecodeError: text that is not right.
        """
        found = [one.features for one in data]
        if self.features is None:
            return found
        parsed: list[Any] = self.features.decode(b"[%b]" % b",".join(found))
        return parsed

    def rows(self, features: Sequence[Any]) -> list[Row]:
        """As `row`, of many."""
        return list(map(self.row if self.categorical else msgspec.structs.astuple, features))

    def row(self, features: Any) -> Row:
        """The values in the order of the spec, categories as text.

        Raises:
            ValueError: a number that is no category.
        """
        row: tuple[Value, ...] = msgspec.structs.astuple(features)
        for place in self.categorical:
            value = row[place]
            if value is not None and not isinstance(value, str):
                row = (*row[:place], category_text(value), *row[place + 1 :])
        return row


def is_event(value: bytes) -> bool:
    """Whether a value seems to be a CloudEvent."""
    return value.find(_ATTRIBUTE) >= 0  # half the price of `in`


def is_plain(text: bytes) -> bool:
    """No CloudEvent: escapes could spell its attribute, and other bytes may not be UTF-8."""
    return text.isascii() and _ESCAPE not in text and not is_event(text)


def shape_of(entity: str, spec: ModelSpec) -> Shape:
    """The shape of an entity that producers write: requests, predictions or feedback.

    Models with the same features and outputs have the same shape, the very object.
    """
    return _remembered(entity, Same(spec))


@lru_cache(maxsize=4096)
def _remembered(entity: str, same: Same[ModelSpec]) -> Shape:
    spec = same.thing
    if entity == "feedback":
        return _shape(entity, "binary", (), 1)
    return _shape(entity, spec.task, spec.features, spec.outputs)


@lru_cache(maxsize=4096)
def _shape(entity: str, task: str, features: tuple[Feature, ...], outputs: int) -> Shape:
    places = tuple(i for i, feature in enumerate(features) if feature.type == "categorical")
    if entity != "requests":
        fields = [] if entity == "feedback" else _narrowed(entity, task, features, outputs)
        return Shape(*_decoders(entity, fields), None, None, None, places, outputs)
    parsed = _features_struct(features)
    whole, strict = _decoders(entity, [("features", parsed)])
    of_many = msgspec.json.Decoder(list[parsed])  # type: ignore[valid-type]
    loose = _decoders(entity, [("features", msgspec.Raw)])
    return Shape(*loose, of_many, strict, whole, places, outputs)


def _decoders(
    entity: str, fields: list[tuple[Any, ...]]
) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    """Of the whole CloudEvent, and of its data, with these fields narrowed."""
    kind = DEFAULT_TYPES[entity]
    data = defstruct(
        "Data",
        [*fields, ("specversion", Any, UNSET)],  # what has one is no data but a CloudEvent
        bases=(EVENT_TYPES[kind][0],),
        frozen=True,
        kw_only=True,
        gc=False,
    )
    structured = defstruct(
        "Structured",
        [
            ("specversion", Literal[SPEC_VERSION]),
            ("type", Literal[kind]),
            ("time", TimeText | None, None),
            ("data", data),
        ],
        bases=(Envelope,),
        frozen=True,
        kw_only=True,
        gc=False,
    )
    return msgspec.json.Decoder(structured), msgspec.json.Decoder(data)


def _narrowed(
    entity: str, task: str, features: tuple[Feature, ...], outputs: int
) -> list[tuple[Any, ...]]:
    fields: list[tuple[Any, ...]] = [("features", _features_struct(features))]
    if entity == "predictions":
        output = _output_type(task, outputs)
        shadow = Annotated[dict[VersionText, output], Meta(max_length=MAX_SHADOWS)]  # type: ignore[valid-type]
        fields += [
            ("output", output),
            ("shadow", shadow, {}),
            ("spec_revision", Count, 0),
            ("generation", Count, 0),
        ]
    return fields


def _features_struct(features: tuple[Feature, ...]) -> type[Struct]:
    types = {"numeric": float | None, "categorical": Category}
    fields: list[tuple[Any, ...]] = [
        (f"f{i}", types[feature.type], *((None,) if feature.optional else ()))
        for i, feature in enumerate(features)
    ]
    return defstruct(
        "Features",
        fields,
        rename={f"f{i}": feature.name for i, feature in enumerate(features)},
        forbid_unknown_fields=True,
        frozen=True,
        kw_only=True,  # so that an optional one may stand before one that is not
        gc=False,
    )


def _output_type(task: str, outputs: int) -> Any:
    if task == "multiclass":
        return Annotated[list[Probability], Meta(min_length=outputs, max_length=outputs)]
    return Probability if task == "binary" else Real
