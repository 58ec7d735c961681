"""What the registry says: plain values, safe to encode, compare and hand on."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from models.spec import ModelSpec


class VersionCard(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What workers must know of a version: where its bytes lie, and their sha256."""

    version: int
    artefact_url: str
    artefact_digest: str
    profile_url: str
    profile_digest: str


class LiveState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is live for a model, whole. Field for field what `lifecycle` carries on the wire."""

    model: str
    generation: int
    spec: ModelSpec
    spec_revision: int
    champion: int | None = None
    challengers: list[int] = []
    previous: int | None = None  # in shadow during probation
    probation: bool = False
    pinned: bool = False
    canary: int | None = None  # a challenger that answers `spec.trial.canary_share` of the requests
    versions: list[VersionCard] = []  # those named above, and the newest others
    changed_ms: int
    cause: str = ""  # command id, or who did it
    reason: str = ""
    traces: list[str] = []  # W3C `traceparent`s of a few of the events that led to it

    def card(self, version: int | None) -> VersionCard | None:
        return next((card for card in self.versions if card.version == version), None)


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of something asked of the registry.

    Attributes:
        generation: the model's, after this; unchanged where not applied; 0 for an unknown model.
        reason: why it was refused; empty where applied.
        repeated: this command id was handled before, and this is what came of it then.
    """

    applied: bool
    generation: int
    reason: str = ""
    repeated: bool = False


class Version(Struct, frozen=True, kw_only=True):
    """One registered version. It never changes and is never removed."""

    model: str
    version: int
    spec_revision: int
    artefact_url: str
    artefact_digest: str
    profile_url: str
    profile_digest: str
    created_ms: int
    run_id: int | None = None
    metrics: dict[str, float] = {}
    who: str = ""

    @property
    def card(self) -> VersionCard:
        return VersionCard(
            version=self.version,
            artefact_url=self.artefact_url,
            artefact_digest=self.artefact_digest,
            profile_url=self.profile_url,
            profile_digest=self.profile_digest,
        )


class Entry(Struct, frozen=True, kw_only=True):
    """One line of a model's history: what was live from `changed_ms` on, and who made it so."""

    model: str
    generation: int
    action: str
    champion: int | None
    challengers: list[int]
    previous: int | None
    probation: bool
    pinned: bool
    spec_revision: int
    changed_ms: int
    canary: int | None = None
    command_id: str | None = None
    who: str = ""
    reason: str = ""
    evidence: dict[str, Any] = {}


class Decision(Struct, frozen=True, kw_only=True):
    """Everything that was asked of a model, applied or refused, with its audit fields."""

    decision_id: int
    model: str
    action: str
    version: int | None
    command_id: str | None
    expected_generation: int | None
    who: str
    reason: str  # as asked
    evidence: dict[str, Any]
    decided_ms: int
    applied: bool
    generation: int
    refusal: str  # empty where applied


class Outgoing(Struct, frozen=True, kw_only=True):
    """One row of the outbox: a state to publish on `lifecycle`, in order of `outbox_id`."""

    outbox_id: int
    state: LiveState


class Health(Struct, frozen=True, kw_only=True):
    """How the registry is: the URL without its password, and its schema against this program's."""

    url: str
    revision: str | None
    head: str
    revisions: frozenset[str]  # that this program can migrate from

    @property
    def current(self) -> bool:
        return self.revision == self.head

    @property
    def known(self) -> bool:
        """An empty database, or one whose schema this program or an older one made."""
        return self.revision is None or self.revision in self.revisions

    @property
    def problem(self) -> str:
        """What is wrong where it is not current, and what to do."""
        if self.known:
            return (
                f"registry {self.url}: schema {self.revision}, this program needs {self.head}; "
                "run `driftline migrate`"
            )
        return (
            f"registry {self.url}: schema {self.revision} was made by a newer version of this "
            f"program, which knows schemas up to {self.head}. Nothing was changed: run the newer "
            "version, or restore the backup that was taken before it"
        )
