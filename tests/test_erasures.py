"""What was erased is in no training that begins later, and the run says how many it left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from consumers.dataset import load
from consumers.fitting import Fitted, Job
from consumers.places import Place, Span
from consumers.trainer import Trainer
from models.erasures import erasure_of
from models.registry import Registry, UnknownModel
from models.runs import DataRange
from stream.events import Command
from stream.settings import Settings
from tests.commands import run, settle_in
from tests.registries import BACKENDS, CHURN, database_url, register
from tests.test_dataset import SPEC, FakeLog


@pytest.fixture(params=BACKENDS)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    with Registry(database_url(request, request.param, tmp_path)) as opened:
        opened.upgrade()
        opened.add_model(CHURN, who="test")
        yield opened


def test_erasing_is_remembered_once_and_by_model(registry: Registry) -> None:
    assert registry.erase("churn", ["a", "b"]) == 2
    assert registry.erase("churn", ["b", "c"], who="ann", reason="asked to") == 1
    assert registry.erased("churn") == {erasure_of("churn", one) for one in "abc"}
    assert registry.erased("other") == set()
    with pytest.raises(UnknownModel):
        registry.erase("other", ["a"])


def test_the_registry_holds_no_erased_id(registry: Registry) -> None:
    """The list of who asked to be forgotten is itself personal data."""
    registry.erase("churn", ["ann@example.org"])
    with registry._database._engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM erasures")).all()
    assert "ann@example.org" not in repr(rows)


def test_many_are_erased_at_once(registry: Registry) -> None:
    assert registry.erase("churn", (f"p{number}" for number in range(20_000))) == 20_000


def test_erased_predictions_are_not_in_the_dataset_and_are_counted() -> None:
    log = FakeLog()
    for number in range(10):
        log.label(number, at_seconds=float(number))
    erased = frozenset(erasure_of("churn", one) for one in ("p3", "p7", "nobody"))
    found = load(log, SPEC, log.bounds("examples"), Settings(), erased)
    assert [row[0] for row in found.rows] == [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 8.0, 9.0]
    assert (found.data.rows, found.data.erased, found.data.labelled) == (8, 2, 10)
    assert (found.gone, found.unfit) == (0, 0)
    assert found.data.digest != load(log, SPEC, log.bounds("examples"), Settings()).data.digest


class Fits:
    """Fits that say what they were given."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.doing = ""

    def __call__(self, job: Job) -> Fits:
        self.jobs.append(job)
        return self

    def poll(self) -> Fitted | None:
        data = DataRange(rows=5, erased=len(self.jobs[-1].erased))
        return Fitted(verdict="refused", reason="too few", data=data)

    def cancel(self) -> None: ...


def test_a_retrain_after_an_erasure_leaves_it_out_and_its_run_says_so(
    registry: Registry, tmp_path: Path
) -> None:
    version = register(registry)
    generation = registry.promote("churn", version, who="test").generation
    registry.erase("churn", ["p3", "p7"])
    fits = Fits()
    trainer = Trainer(registry, Settings(), lambda: [Span(0, 0, 10)], fits)
    fields = {"model": "churn", "generation": generation, "reason": "harm", "issued_ms": 1}
    trainer.take(Command(command_id="c", kind="retrain", **fields), Place(0, 0))  # type: ignore[arg-type]
    trainer.collect()
    assert set(fits.jobs[0].erased) == registry.erased("churn")
    data = registry.runs("churn")[0].data
    assert data is not None
    assert data.erased == 2


def test_the_command_erases_by_id_and_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_in(tmp_path, monkeypatch)
    from tests.commands import registry_here

    with registry_here() as opened:
        opened.add_model(CHURN, who="test")
        (tmp_path / "ids.txt").write_text("p1\n\n p2 \n")
        done = run("erase", "--model", "churn", "--prediction-id", "p3", "--file", "ids.txt")
        assert done.exit_code == 0, done.output
        assert opened.erased("churn") == {erasure_of("churn", one) for one in ("p1", "p2", "p3")}
        assert run("erase", "--model", "churn").exit_code == 2
        assert run("erase", "--model", "nobody", "--prediction-id", "x").exit_code == 2
