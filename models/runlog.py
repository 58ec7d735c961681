"""Training runs and the versions they yield. Kept for ever; a run's verdict is given once.

Every step may be repeated after a crash: a run is found again by its command id, its data range
stays the one first recorded, it yields one version, and its first verdict stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from models import history
from models import tables as t
from models.artefacts import check_digest
from models.careers import Turn, career
from models.comparing import Comparison, compare_runs
from models.database import Door, RegistryMisuse
from models.runs import Candidate, DataRange, Run, Verdict, library_versions
from models.spec import ModelSpec
from models.state import Version


class RunLog(Door):
    """The registry's part that trainers write to."""

    def begin_run(
        self,
        model: str,
        *,
        cause: str,
        command_id: str | None = None,
        alert_id: str | None = None,
        who: str = "",
        evidence: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        seed: int = 0,
        expected_generation: int | None = None,
    ) -> int:
        """Begin a run, or begin it again if its command was begun before. Returns its id.

        Look at its verdict before work starts: it has one already if the command is an old one, or
        if its generation is no longer in force ("void").

        Raises:
            UnknownModel
        """
        now = self._clock()

        def work(connection: Connection) -> int:
            row = history.locked(connection, model)
            if command_id is not None and (known := _by_command(connection, command_id)):
                _begin_again(connection, known)
                return known
            values = {
                "model": model,
                "cause": cause,
                "command_id": command_id,
                "alert_id": alert_id,
                "who": who,
                "evidence": dict(evidence or {}),
                "parameters": dict(parameters or {}),
                "seed": seed,
                "started_ms": now,
            }
            return _insert(connection, values | _standing(row, expected_generation, now))

        return self._database.write(work)

    def record_run(
        self, run_id: int, *, data: DataRange, parameters: Mapping[str, Any] | None = None
    ) -> Run:
        """Write down what a run will read, before it does. Returns the run.

        The first range stands, so that an attempt after a crash fits the same data.

        Raises:
            RegistryMisuse: no such run.
        """

        def work(connection: Connection) -> Run:
            run = _known(connection, run_id)
            if run.data is None:
                values = {"data": data, "parameters": run.parameters | dict(parameters or {})}
                _change(connection, run_id, values)
            return _known(connection, run_id)

        return self._database.write(work)

    def finish_run(
        self,
        run_id: int,
        verdict: Verdict,
        *,
        reason: str = "",
        data: DataRange | None = None,
        parameters: Mapping[str, Any] | None = None,
        candidates: Sequence[Candidate] = (),
        artefact_digest: str = "",
        profile_digest: str = "",
    ) -> bool:
        """Give a run its verdict. False: it has one already, and that one stands.

        Raises:
            RegistryMisuse: no such run, or "running" as verdict.
        """
        if verdict == "running":
            raise RegistryMisuse("a run cannot finish as running")
        values: dict[str, Any] = {
            "verdict": verdict,
            "reason": reason,
            "candidates": list(candidates),
            "artefact_digest": artefact_digest,
            "profile_digest": profile_digest,
            "finished_ms": self._clock(),
        }

        def work(connection: Connection) -> bool:
            run = _known(connection, run_id)
            more = {"data": data or run.data, "parameters": run.parameters | dict(parameters or {})}
            return _change(connection, run_id, values | more)

        return self._database.write(work)

    def tell_run(self, run_id: int, doing: str) -> bool:
        """Say what a running run is doing. False: it is over, or was cancelled."""
        return self._database.write(
            lambda connection: _change(connection, run_id, {"reason": doing})
        )

    def cancel_run(self, run_id: int, *, who: str, reason: str = "") -> bool:
        """End a run before its fit does: its trainer drops the fit. False: it has its verdict.

        Raises:
            RegistryMisuse: no such run.
        """
        said = f"cancelled by {who}" + (f": {reason}" if reason else "")
        return self.finish_run(run_id, "cancelled", reason=said)

    def register_version(
        self,
        model: str,
        *,
        artefact_url: str,
        artefact_digest: str,
        profile_url: str,
        profile_digest: str,
        run_id: int | None = None,
        metrics: Mapping[str, float] | None = None,
        who: str = "",
        version: int | None = None,
    ) -> int:
        """Register a version; versions of a model count from 1. A run yields the same one always.

        Args:
            version: the number that it has elsewhere already, greater than those registered.

        Raises:
            UnknownModel
            RegistryMisuse: no such run, or one of another model; or the number is not greater.
            ArtefactError: a digest is none.
        """
        values = {
            "model": model,
            "artefact_url": artefact_url,
            "artefact_digest": check_digest(artefact_digest),
            "profile_url": profile_url,
            "profile_digest": check_digest(profile_digest),
            "run_id": run_id,
            "metrics": dict(metrics or {}),
            "created_ms": self._clock(),
            "who": who,
        }
        return self._database.write(lambda connection: _register(connection, values, version))

    def versions(self, model: str) -> list[Version]:
        """Every version, oldest first."""
        return self._database.read(lambda connection: history.versions(connection, model))

    def run(self, run_id: int) -> Run | None:
        return self._database.read(
            lambda connection: next(iter(_read(connection, _runs(t.runs.c.run_id == run_id))), None)
        )

    def runs(self, model: str | None = None, limit: int = 1000) -> list[Run]:
        """The newest runs of a model, or of all, newest first."""
        rows = _runs() if model is None else _runs(t.runs.c.model == model)
        newest = rows.order_by(t.runs.c.run_id.desc()).limit(limit)
        return self._database.read(lambda connection: _read(connection, newest))

    def spec_of(self, run: Run) -> ModelSpec:
        """The spec in force when the run began."""
        rows = select(t.specs.c.spec).where(
            t.specs.c.model == run.model, t.specs.c.revision == run.spec_revision
        )
        spec: ModelSpec = self._database.read(
            lambda connection: connection.execute(rows).scalar_one()
        )
        return spec

    def career(self, run: Run) -> list[Turn]:
        """What became of the version that a run yielded; empty if it yielded none."""
        version = run.version
        if version is None:
            return []
        entries = self._database.read(lambda connection: history.entries(connection, run.model))
        return career(entries, version)

    def compare_runs(self, a: int, b: int) -> Comparison:
        """What differs between two runs. Raises RegistryMisuse if there is no such run."""

        def work(connection: Connection) -> Comparison:
            return compare_runs(_known(connection, a), _known(connection, b))

        return self._database.read(work)


def _standing(
    row: Row[tuple[Any, ...]], expected_generation: int | None, now_ms: int
) -> dict[str, Any]:
    """What a new run takes from the generation in force; void if it was asked for another."""
    void = expected_generation not in (None, row.generation)
    reason = f"decided on generation {expected_generation}, it is {row.generation} now"
    return {
        "generation": row.generation,
        "spec_revision": row.spec_revision,
        "libraries": library_versions(),
        "data": None,
        "candidates": [],
        "attempts": 1,
        "verdict": "void" if void else "running",
        "reason": reason if void else "",
        "finished_ms": now_ms if void else None,
        "artefact_digest": "",
        "profile_digest": "",
    }


def _register(connection: Connection, values: dict[str, Any], wanted: int | None) -> int:
    model: str = values["model"]
    revision = history.locked(connection, model).spec_revision
    if values["run_id"] is not None:
        run = _known(connection, values["run_id"])
        if run.model != model:
            raise RegistryMisuse(f"run {run.run_id} is of model {run.model!r}, not {model!r}")
        if run.version is not None:
            return run.version
        revision = run.spec_revision
    newest = history.newest_version(connection, model)
    version = newest + 1 if wanted is None else wanted
    if version <= newest:
        raise RegistryMisuse(f"version {version} of {model}: {newest} is registered already")
    connection.execute(
        insert(t.versions).values(values | {"version": version, "spec_revision": revision})
    )
    return version


def _by_command(connection: Connection, command_id: str) -> int | None:
    rows = select(t.runs.c.run_id).where(t.runs.c.command_id == command_id)
    return connection.execute(rows).scalar()


def _known(connection: Connection, run_id: int) -> Run:
    found = _read(connection, _runs(t.runs.c.run_id == run_id))
    if not found:
        raise RegistryMisuse(f"no run {run_id}")
    return found[0]


def _insert(connection: Connection, values: dict[str, Any]) -> int:
    run = insert(t.runs).values(values).returning(t.runs.c.run_id)
    run_id: int = connection.execute(run).scalar_one()
    return run_id


def _begin_again(connection: Connection, run_id: int) -> None:
    _change(connection, run_id, {"attempts": t.runs.c.attempts + 1})


def _change(connection: Connection, run_id: int, values: dict[str, Any]) -> bool:
    """Write to a run that is still running. False: it has its verdict, nothing was written."""
    running = update(t.runs).where(t.runs.c.run_id == run_id, t.runs.c.verdict == "running")
    return connection.execute(running.values(values)).rowcount == 1


def _runs(*where: Any) -> Select[tuple[Any, ...]]:
    yielded = t.versions.c.run_id == t.runs.c.run_id
    joined = t.runs.outerjoin(t.versions, yielded)
    return select(t.runs, t.versions.c.version).select_from(joined).where(*where)


def _read(connection: Connection, rows: Select[tuple[Any, ...]]) -> list[Run]:
    return [Run(**row) for row in connection.execute(rows).mappings()]
