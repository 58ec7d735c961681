"""Another policy over the same range: what may be changed, and what would have been otherwise.

Only what evaluate alone reads may be changed: counts stay what monitor made of what was predicted.
What was live stays as it was, too. So from the first command on that differs, the other world is
not known: whether a version that was never trained would have been better, or one that was never
taken back worse, no log tells.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from consumers.replay.verdicts import Verdicts
from models.spec import ModelSpec, check
from stream.errors import ConfigurationError
from stream.events import Alert, Command

#: Parts of a spec that only evaluate reads.
PARTS: Final = ("policy", "budget", "tolerances", "alerts", "trial", "detectors")
#: Beside them.
FIELDS: Final = ("ticks.minimum_events",)

Respecify = Callable[[ModelSpec], ModelSpec]


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was or would have been; where both are set, in both.

    Attributes:
        what: "alert harm", "retrain", "promote 2", ...
        was_ms, would_ms: when it was opened or commanded.
        was, would: the evidence in a sentence; of an alert, what was done about it as well.
        known: it lies before the two worlds part.
    """

    what: str
    was_ms: int | None = None
    would_ms: int | None = None
    was: str = ""
    would: str = ""
    known: bool = True


class Comparison(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was beside what would have been.

    Attributes:
        counts: name -> (was, would): alerts, held retrains, and commands by kind.
        parted_ms: when the first command differs; from then on the other world is not known.
    """

    rows: list[Row]
    counts: dict[str, tuple[int, int]]
    parted_ms: int | None = None


def by_overrides(pairs: Sequence[str]) -> Respecify:
    """From `part.field=value`, the value as TOML or a bare word; null: none.

    >>> from models.spec import Feature
    >>> spec = ModelSpec(name="m", task="regression", features=(Feature(name="x"),))
    >>> by_overrides(["policy.retrains_per_week=1"])(spec).policy.retrains_per_week
    1

    Raises:
        ConfigurationError: one is none, or changes what would change the counts.
    """
    wanted = [_pair(pair) for pair in pairs]

    def respecify(spec: ModelSpec) -> ModelSpec:
        plain = msgspec.to_builtins(spec)
        for path, value in wanted:
            part, _, field = path.partition(".")
            if field and field not in plain[part]:
                raise ConfigurationError(f"{path}: there is no such field of {part}")
            if field:
                plain[part][field] = value
            else:
                plain[part] = value
        return _checked(plain)

    return respecify


def by_spec(other: ModelSpec, now: ModelSpec) -> Respecify:
    """With the parts of another spec.

    Args:
        now: the newest spec of the range, from which the rest must not differ.

    Raises:
        ConfigurationError: it does.
    """
    if odd := _beyond(other, now):
        raise ConfigurationError(
            f"the spec differs in {', '.join(odd)} too, with which other counts would have been "
            f"made: a replay can change {', '.join((*PARTS, *FIELDS))}"
        )

    def respecify(spec: ModelSpec) -> ModelSpec:
        parts = {part: getattr(other, part) for part in PARTS}
        least = other.ticks.minimum_events
        ticks = msgspec.structs.replace(spec.ticks, minimum_events=least)
        return check(msgspec.structs.replace(spec, ticks=ticks, **parts))

    return respecify


def compare(was: Verdicts, would: Verdicts) -> Comparison:
    """Alerts and commands side by side, in the order of time."""
    parted_ms = _parted(was.commands, would.commands)
    rows: dict[tuple[str, int], Row] = {}
    for verdicts, side in ((was, "was"), (would, "would")):
        for name, at_ms, words in _told(verdicts):
            row = rows.get((name, at_ms)) or Row(what=name)
            more: dict[str, Any] = {f"{side}_ms": at_ms, side: words}
            rows[name, at_ms] = msgspec.structs.replace(row, **more)
    told = [
        msgspec.structs.replace(row, known=parted_ms is None or at_ms <= parted_ms)
        for (_, at_ms), row in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    return Comparison(rows=told, counts=_counts(was, would), parted_ms=parted_ms)


def _pair(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{text}: write part.field=value")
    if path.partition(".")[0] not in PARTS and path not in FIELDS:
        raise ConfigurationError(
            f"{path}: with it other counts would have been made, or another model; a replay can "
            f"change {', '.join((*PARTS, *FIELDS))}"
        )
    if value in ("null", "none"):
        return path, None
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value


def _checked(plain: dict[str, Any]) -> ModelSpec:
    try:
        return check(msgspec.convert(plain, ModelSpec))
    except ValueError as error:
        raise ConfigurationError(f"the changed spec: {error}") from error


def _beyond(other: ModelSpec, now: ModelSpec) -> list[str]:
    """Fields in which they differ that may not differ."""
    same_ticks = msgspec.structs.replace(other.ticks, minimum_events=now.ticks.minimum_events)
    other = msgspec.structs.replace(other, ticks=same_ticks)
    free = {*PARTS, "training", "owner", "description"}  # these decide nothing of a range
    fields = [name for name in ModelSpec.__struct_fields__ if name not in free]
    return [name for name in fields if getattr(other, name) != getattr(now, name)]


def _told(verdicts: Verdicts) -> list[tuple[str, int, str]]:
    """Name, when, and in words, of alerts, commands and retrains that were held."""
    alerts = [(f"alert {one.problem}", one.opened_ms, _words(one)) for one in verdicts.opened]
    commands = [(_name(one), one.issued_ms, one.reason) for one in verdicts.commands]
    held = [(f"held ({one.cause})", one.held_ms, one.reason) for one in verdicts.held]
    return [*alerts, *commands, *held]


def _name(command: Command) -> str:
    return " ".join(str(word) for word in (command.kind, command.version) if word is not None)


def _words(alert: Alert) -> str:
    action = alert.evidence.get("action")
    return f"{alert.sentence} [{action!s}]" if action else alert.sentence


def _parted(was: Sequence[Command], would: Sequence[Command]) -> int | None:
    """When the first command lies that is in one of them only."""
    one, other = ({(_name(c), c.issued_ms) for c in commands} for commands in (was, would))
    return min((at_ms for _, at_ms in one ^ other), default=None)


def _counts(was: Verdicts, would: Verdicts) -> dict[str, tuple[int, int]]:
    kinds = sorted({c.kind for c in (*was.commands, *would.commands)} | {"retrain", "rollback"})
    return {
        "alerts": (len(was.opened), len(would.opened)),
        **{kind: (was.commanded(kind), would.commanded(kind)) for kind in kinds},
        "held": (len(was.held), len(would.held)),
    }
