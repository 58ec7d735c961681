"""What versions that are held here would have said of predictions that were made elsewhere."""

from __future__ import annotations

from itertools import chain
from typing import Final, NamedTuple

from models.losses import MAX_VALUE
from models.spec import ModelSpec
from stream.core.checking import floats
from stream.core.joining import Beside
from stream.core.processor import Record, Records
from stream.core.shapes import MAX_SHADOWS
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import Output, PredictionShadowed

KIND: Final = "driftline.prediction.shadowed.v1"
MARK: Final = KIND.encode()


class Shadowed(NamedTuple):
    """One such event, of a form that is right."""

    record: Record
    data: PredictionShadowed

    def beside(self, spec: ModelSpec, floor_ms: int) -> Beside:
        """What is joined to its prediction.

        Raises:
            Refused: bad-output.
        """
        shadow = self.data.shadow
        if not 0 < len(shadow) <= MAX_SHADOWS or not all(map(_is_version, shadow)):
            raise Refused("bad-output", f"{len(shadow)} shadows, at most {MAX_SHADOWS}, by version")
        values = [_values(spec, version, said) for version, said in shadow.items()]
        flat = tuple(chain.from_iterable(values))
        versions = tuple(map(int, shadow))
        return Beside(self.data.prediction_id, self.data.version, versions, flat, floor_ms)


def told_apart(records: Records, max_bytes: int) -> tuple[Records, list[Shadowed]]:
    """Predictions, and what shadows would have said; what is not right is left among the former."""
    if MARK not in b"".join(filter(None, records.values)):
        return records, []
    marked = [i for i, value in enumerate(records.values) if value is not None and MARK in value]
    found = {i: one for i in marked if (one := _shadowed(records[i], max_bytes)) is not None}
    others = [i for i in range(len(records)) if i not in found]
    return records.take(others), list(found.values())


def _shadowed(record: Record, max_bytes: int) -> Shadowed | None:
    try:
        opened = open_record("predictions", record, max_bytes=max_bytes)
        return Shadowed(record, read(opened, PredictionShadowed)) if opened.type == KIND else None
    except Refused:
        return None


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 2**31


def _values(spec: ModelSpec, version: str, output: Output) -> tuple[float, ...]:
    values = floats(output, f"shadow {version}")
    most = MAX_VALUE if spec.task == "regression" else 1.0
    least = -most if spec.task == "regression" else 0.0
    if len(values) != spec.outputs or not all(least <= value <= most for value in values):
        raise Refused("bad-output", f"shadow {version}: not an output of {spec.name!r}")
    return values
