"""What inference servers log, as predictions: pure, from records to rows.

KServe's logger writes a CloudEvent for each request and one for each response, with the same id;
some gateways write both as one record, `{"request": ..., "response": ...}`. Payloads are those of
the Open Inference Protocol (named tensors) or of its first version (`instances`, `predictions`). A
record may hold a batch of CloudEvents, Driftline's own among them; and records that do not say what
they are may all be of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from models.spec import ModelSpec
from stream.core.processor import Record
from stream.core.traces import is_trace
from stream.envelope import SPEC_VERSION, binary_attributes, derived_id, from_ms, ms_of
from stream.errors import Refused
from stream.events import DEFAULT_TYPES

REQUEST: Final = ".inference.request"  # org.kubeflow.serving..., io.seldon.serving...
RESPONSE: Final = ".inference.response"
OURS: Final = "driftline."
SOURCE: Final = "driftline/bridge"
#: Names that servers give to the tensor of probabilities, beside that of labels.
OUTPUTS: Final = ("predict_proba", "probabilities", "output_probability")

Payload = dict[str, Any]
Features = dict[str, float | str | bool | None]
Row = tuple[Features, float | list[float]]


class Half(NamedTuple):
    """A request or a response; `service` is the inference service's name, if the logger told it,
    `traceparent` W3C's, if the event or its record carries one."""

    kind: Literal["request", "response"]
    id: str
    service: str
    time_ms: int
    payload: Payload
    traceparent: str | None = None


class Own(NamedTuple):
    """An event of Driftline's own out of a batch."""

    kind: str
    event: Payload


def read(record: Record, entity: str = "") -> Iterator[Half | Own]:
    """What a record holds; nothing if it is an event of another kind.

    Args:
        entity: what an object is that does not say it, by the topic it would lie in.

    Raises:
        Refused: null-value, bad-json, bad-envelope.
    """
    if record.value is None:
        raise Refused("null-value", "the record has no value")
    said: Payload = dict(binary_attributes(record.headers))
    value = _json(record.value)
    if "specversion" in said:
        yield from _event({**said, "data": value}, record)
    else:
        for event in value if isinstance(value, list) else [value]:
            yield from _event(event, record, entity)


def rows(spec: ModelSpec, request: Payload, response: Payload, output: str = "") -> list[Row]:
    """Each instance of a request with what the model said of it.

    Args:
        output: the name of the tensor that holds it; by default the only one, or a known name.

    Raises:
        Refused: bad-features, bad-output: they do not fit the spec, or each other.
    """
    asked = _asked(spec, request)
    said = _said(response, output, len(asked))
    if len(asked) != len(said):
        raise Refused("bad-output", f"{len(asked)} instances, {len(said)} outputs")
    return [(features, _output(spec, one)) for features, one in zip(asked, said, strict=True)]


def version_of(response: Payload) -> int | None:
    """The model's version, where the server told one that is a number."""
    told = str(response.get("model_version") or "")
    return int(told) if told.isdecimal() and 0 < int(told) < 2**31 else None


def _json(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused("bad-json", str(error) or "nested too deeply") from error


def _event(event: Any, record: Record, entity: str = "") -> Iterator[Half | Own]:
    """One event, in structured mode or as both halves in one object."""
    if not isinstance(event, dict):
        raise Refused("bad-envelope", "no object")
    kind = str(event.get("type", ""))
    if kind.startswith(OURS):
        yield Own(kind, _traced(event, record))
    elif kind.endswith((REQUEST, RESPONSE)):
        half: Literal["request", "response"] = "request" if kind.endswith(REQUEST) else "response"
        yield _half(half, event, event.get("data"), record)
    elif "request" in event and "response" in event:
        for half in ("request", "response"):
            yield _half(half, {**event, "id": _id(event)}, event[half], record)
    elif entity and "specversion" not in event:
        yield _bare(event, record, DEFAULT_TYPES[entity])


def _bare(data: Payload, record: Record, kind: str) -> Own:
    """Data without attributes, with those that it would have in its own topic."""
    attributes = {
        "specversion": SPEC_VERSION,
        "id": derived_id("bridge", kind, data.get("prediction_id"), record.offset),
        "source": SOURCE,
        "type": kind,
        "time": from_ms(record.timestamp_ms),
    }
    return Own(kind, _traced({**attributes, "data": data}, record))


def _id(event: Payload) -> Any:
    """Of a record with both halves: its own, or the protocol's."""
    parts = (event, event["response"], event["request"])
    return next((p["id"] for p in parts if isinstance(p, dict) and p.get("id")), None)


def _half(
    kind: Literal["request", "response"], event: Payload, payload: Any, record: Record
) -> Half:
    if not isinstance(payload, dict):
        raise Refused("bad-envelope", f"the {kind} is no JSON object")
    id_ = event.get("id")
    if not id_ or not isinstance(id_, str | int):
        raise Refused("bad-envelope", f"the {kind} has no id")
    service = event.get("inferenceservicename") or payload.get("model_name") or ""
    time_ms, trace = _time_ms(event, record), _trace(event, record)
    return Half(kind, str(id_), str(service), time_ms, payload, trace)


def _trace(event: Payload, record: Record) -> str | None:
    """The `traceparent` that an event names, or else its record; what is none is left out."""
    named = event.get("traceparent") or binary_attributes(record.headers).get("traceparent")
    return named if isinstance(named, str) and is_trace(named) else None


def _traced(event: Payload, record: Record) -> Payload:
    trace = _trace(event, record)
    kept = {name: value for name, value in event.items() if name != "traceparent"}
    return kept if trace is None else {**kept, "traceparent": trace}


def _time_ms(event: Payload, record: Record) -> int:
    if "time" not in event:
        return record.timestamp_ms
    try:
        return ms_of(str(event["time"]))
    except msgspec.ValidationError as error:
        raise Refused("bad-envelope", f"time {str(event['time'])[:40]!r}") from error


def _asked(spec: ModelSpec, request: Payload) -> list[Features]:
    if isinstance(request.get("instances"), list):
        return [_instance(spec, one) for one in request["instances"]]
    tensors = _tensors(request.get("inputs"), "bad-features")
    missing = _missing(spec, tensors)
    if not missing:
        names = [name for name in spec.feature_names if name in tensors]
        columns = [_column(name, tensors[name]) for name in names]
        if len({len(column) for column in columns}) != 1:
            raise Refused("bad-features", "the inputs have different numbers of rows")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if len(tensors) == 1:
        [values] = tensors.values()
        return [_instance(spec, row) for row in values]
    absent = ", ".join(sorted(missing))
    raise Refused("bad-features", f"no inputs {absent}, and not one tensor of all features")


def _missing(spec: ModelSpec, found: Mapping[str, Any]) -> list[str]:
    return [f.name for f in spec.features if not f.optional and f.name not in found]


def _instance(spec: ModelSpec, one: Any) -> Features:
    names = spec.feature_names
    if isinstance(one, Mapping):
        missing = _missing(spec, one)
        if missing:
            raise Refused("bad-features", f"feature {missing[0]!r} is missing")
        return {name: one[name] for name in names if name in one}
    values = one if isinstance(one, list) else [one]
    if len(values) != len(names):
        raise Refused("bad-features", f"{len(values)} values for {len(names)} features")
    return dict(zip(names, values, strict=True))


def _column(name: str, values: list[Any]) -> list[Any]:
    """A tensor of shape (n,) or (n, 1)."""
    flat = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]
    if any(isinstance(value, list) for value in flat):
        raise Refused("bad-features", f"input {name!r} has more than one value a row")
    return flat


def _said(response: Payload, output: str, instances: int) -> list[Any]:
    if isinstance(response.get("predictions"), list):
        return list(response["predictions"])
    tensors = _tensors(response.get("outputs"), "bad-output")
    wanted = [output] if output else [name for name in OUTPUTS if name in tensors]
    if not wanted and len(tensors) == 1:
        wanted = list(tensors)
    if not wanted or wanted[0] not in tensors:
        raise Refused("bad-output", f"which of {', '.join(sorted(tensors))}? Name it by --output")
    values = tensors[wanted[0]]
    # One instance whose probabilities are not wrapped once more: shape (classes,).
    return [values] if instances == 1 and len(values) > 1 else values


def _output(spec: ModelSpec, said: Any) -> float | list[float]:
    values = said if isinstance(said, list) else [said]
    if not values or not all(isinstance(v, int | float) for v in values):
        raise Refused("bad-output", f"{str(said)[:60]!r} is no number")
    numbers = [float(value) for value in values]
    if spec.task == "multiclass":
        return numbers
    if spec.task == "binary" and len(numbers) == 2:
        return numbers[1]  # of the positive class
    if len(numbers) != 1:
        raise Refused("bad-output", f"{len(numbers)} numbers of a {spec.task} model")
    return numbers[0]


def _tensors(given: Any, reason: str) -> dict[str, list[Any]]:
    """Name -> rows."""
    if not isinstance(given, list) or not given:
        raise Refused(reason, "neither the Open Inference Protocol's tensors nor version 1's lists")
    found = {}
    for tensor in given:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("data"), list):
            raise Refused(reason, "a tensor has no data in JSON")
        found[str(tensor.get("name", ""))] = _rows(tensor, reason)
    return found


def _rows(tensor: Payload, reason: str) -> list[Any]:
    """Its data by the first axis, whether it came flat or nested."""
    data, shape = tensor["data"], tensor.get("shape")
    nested = any(isinstance(value, list) for value in data)
    if nested or not isinstance(shape, list) or len(shape) < 2:
        return list(data)
    count, width = shape[0], len(data) // shape[0] if shape[0] else 0
    if not isinstance(count, int) or count * width != len(data) or len(shape) > 2:
        raise Refused(reason, f"{len(data)} values do not make the shape {shape}")
    return [data[n * width : (n + 1) * width] for n in range(count)]
