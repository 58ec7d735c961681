"""The lifecycle of a model's versions as pure rules: what may follow what, and why not.

A rule takes where the model stands and says where it would stand, or refuses with a sentence.
The registry applies rules to its newest history row; a preview applies them and stops there.

A pin stops every change of champion, by commands and by people alike, until it is taken off; it
ends a canary, which then challenges on in shadow. Whenever the champion changes, the canary ends.
Automatic decisions (commands) promote challengers only; a person may promote any version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

Action = Literal["challenge", "canary", "promote", "reject", "rollback", "settle", "pin", "unpin"]

#: Each challenger costs every worker one more predict per batch, so there is a limit.
MAX_CHALLENGERS: Final = 8


class Standing(Struct, frozen=True, kw_only=True):
    """Which versions score, and as what. The champion is one value, so there can't be two."""

    champion: int | None = None
    challengers: tuple[int, ...] = ()
    previous: int | None = None  # in shadow while the champion is on probation
    probation: bool = False
    pinned: bool = False
    canary: int | None = None  # a challenger that answers a share of the requests already

    @property
    def named(self) -> tuple[int, ...]:
        """Every version that plays a part, each once, ascending."""
        parts = {self.champion, self.previous, *self.challengers} - {None}
        return tuple(sorted(part for part in parts if part is not None))


class Past(Struct, frozen=True, kw_only=True):
    """One earlier standing and the action that led to it."""

    action: str
    champion: int | None
    pinned: bool = False


class Asked(Struct, frozen=True, kw_only=True):
    """What a rule needs to know beside the standing.

    Attributes:
        version: the version meant; None where the rule may find it.
        automatic: decided by a command rather than a person.
        newest: the newest registered version; versions count from 1 and are never removed.
        past: earlier and current standings, oldest first.
    """

    version: int | None = None
    automatic: bool = False
    newest: int = 0
    past: Sequence[Past] = ()


class Refusal(Struct, frozen=True):
    """Why not: one sentence for a person, kept in the record."""

    reason: str


Rule = Callable[[Standing, Asked], Standing | Refusal]


def decide(action: Action, standing: Standing, asked: Asked) -> Standing | Refusal:
    """Where the model would stand after `action`, or why it may not be done.

    >>> decide("promote", Standing(champion=1), Asked(version=2, newest=2))
    Standing(champion=2, challengers=(), previous=1, probation=True, pinned=False, canary=None)
    >>> decide("settle", Standing(champion=1), Asked())
    Refusal(reason='no probation is running')
    """
    if asked.version is not None and not 1 <= asked.version <= asked.newest:
        return Refusal(f"version {asked.version} is not registered")
    return RULES[action](standing, asked)


def _challenge(standing: Standing, asked: Asked) -> Standing | Refusal:
    version = asked.version
    if version is None:
        return Refusal("name the version that is to challenge")
    if version == standing.champion:
        return Refusal(f"version {version} is the champion")
    if version in standing.challengers:
        return Refusal(f"version {version} is a challenger already")
    if version == standing.previous:
        return Refusal(f"version {version} is in shadow already, as the previous champion")
    if len(standing.challengers) >= MAX_CHALLENGERS:
        return Refusal(f"there are {MAX_CHALLENGERS} challengers already; reject one first")
    return replace(standing, challengers=(*standing.challengers, version))


def _canary(standing: Standing, asked: Asked) -> Standing | Refusal:
    version = asked.version
    if version is None or version not in standing.challengers:
        return Refusal(f"version {version} is no challenger")
    if standing.pinned:
        return _pinned(standing)
    if standing.canary is not None:
        return Refusal(f"version {standing.canary} is the canary; one at a time")
    return replace(standing, canary=version)


def _promote(standing: Standing, asked: Asked) -> Standing | Refusal:
    version = asked.version
    if version is None and len(standing.challengers) == 1:
        version = standing.challengers[0]
    if version is None:
        return Refusal("name the version to promote: there is not exactly one challenger")
    if standing.pinned:
        return _pinned(standing)
    if version == standing.champion:
        return Refusal(f"version {version} is the champion already")
    if asked.automatic and version not in standing.challengers:
        return Refusal(f"version {version} is no challenger, and only a person may promote another")
    return Standing(
        champion=version,
        challengers=_without(standing.challengers, version),
        previous=standing.champion,
        probation=standing.champion is not None,
    )


def _reject(standing: Standing, asked: Asked) -> Standing | Refusal:
    version = asked.version
    if version is None and len(standing.challengers) == 1:
        version = standing.challengers[0]
    if version is None:
        return Refusal("name the version to reject: there is not exactly one challenger")
    if version not in standing.challengers:
        return Refusal(f"version {version} is no challenger")
    canary = None if standing.canary == version else standing.canary
    return replace(standing, challengers=_without(standing.challengers, version), canary=canary)


def _rollback(standing: Standing, asked: Asked) -> Standing | Refusal:
    if standing.champion is None:
        return Refusal("there is no champion to roll back from")
    if standing.pinned:
        return _pinned(standing)
    target = rollback_target(standing, asked)
    if isinstance(target, Refusal):
        return target
    return Standing(champion=target, challengers=_without(standing.challengers, target))


def rollback_target(standing: Standing, asked: Asked) -> int | Refusal:
    """The version to go back to: the one asked for, or the last healthy champion before this one.

    Healthy is a version whose newest time as champion did not end in a rollback. The search stops
    at the newest champion that was ever pinned: an automatic rollback never goes past it.
    A person may name any former champion.
    """
    if asked.version == standing.champion:
        return Refusal(f"version {asked.version} is the champion already")
    if asked.version is not None and not asked.automatic:
        if any(past.champion == asked.version for past in asked.past):
            return asked.version
        return Refusal(f"version {asked.version} never was champion; promote it instead")
    healthy = _healthy_champions(standing, asked.past)
    if asked.version is not None and asked.version not in healthy:
        return Refusal(f"version {asked.version} is no healthy former champion since the last pin")
    if not healthy:
        return Refusal("no healthy former champion since the last pin to roll back to")
    return healthy[0] if asked.version is None else asked.version


def _healthy_champions(standing: Standing, past: Sequence[Past]) -> list[int]:
    """Former champions, newest first, down to the newest that was pinned."""
    healthy: list[int] = []
    seen = {standing.champion, None}
    for i in range(len(past) - 1, -1, -1):
        version = past[i].champion
        if version not in seen and version is not None:
            seen.add(version)
            if past[i + 1].action != "rollback":
                healthy.append(version)
        if past[i].pinned:
            break
    return healthy


def _settle(standing: Standing, asked: Asked) -> Standing | Refusal:
    if not standing.probation:
        return Refusal("no probation is running")
    if asked.version not in (None, standing.previous):
        return Refusal(
            f"version {asked.version} is not the previous champion, {standing.previous} is"
        )
    return replace(standing, previous=None, probation=False)


def _pin(standing: Standing, asked: Asked) -> Standing | Refusal:
    if standing.champion is None:
        return Refusal("there is no champion to pin")
    if asked.version not in (None, standing.champion):
        return Refusal(f"version {asked.version} is not the champion, {standing.champion} is")
    if standing.pinned:
        return Refusal(f"version {standing.champion} is pinned already")
    return replace(standing, pinned=True, canary=None)


def _unpin(standing: Standing, asked: Asked) -> Standing | Refusal:
    if not standing.pinned:
        return Refusal("nothing is pinned")
    if asked.version not in (None, standing.champion):
        return Refusal(f"version {asked.version} is not the champion, {standing.champion} is")
    return replace(standing, pinned=False)


RULES: Final[dict[Action, Rule]] = {
    "challenge": _challenge,
    "canary": _canary,
    "promote": _promote,
    "reject": _reject,
    "rollback": _rollback,
    "settle": _settle,
    "pin": _pin,
    "unpin": _unpin,
}


def _pinned(standing: Standing) -> Refusal:
    return Refusal(f"version {standing.champion} is pinned; unpin the model first")


def _without(versions: tuple[int, ...], version: int) -> tuple[int, ...]:
    return tuple(v for v in versions if v != version)
