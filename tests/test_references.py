"""A version that was not trained here gets its reference from what it said and met."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from consumers.first_version import TrainingFailed
from consumers.places import Span
from consumers.publishing import Columns
from consumers.references import Seen, make_reference, read_file, read_period
from models import joint, profile
from models.artefacts import fetch
from models.erasures import erasure_of
from models.examples import TrainingRefused
from models.profiling import Binner
from models.references import Observed, check_output, reference
from models.registry import Registry, RegistryMisuse
from models.spec import Feature, ModelSpec
from stream.envelope import write
from stream.events import FeedbackReceived, PredictionMade
from stream.settings import Settings
from tests.commands import run, settle_in
from tests.registries import register
from tests.streams import HOUR_MS, examples, spec
from tests.test_dataset import FakeLog

FRAUD = ModelSpec(
    name="fraud",
    task="binary",
    classes=("honest", "fraud"),
    features=(Feature(name="age"), Feature(name="plan", type="categorical")),
    served="elsewhere",
)


class DatedLog(FakeLog):
    """A log whose records are stamped with their offset, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.records["feedback"], self.first["feedback"] = [], 0

    def since(self, entity: str, time_ms: int) -> list[Span]:
        end = len(self.records[entity])
        start = end if entity == "predictions" else 0
        return [Span(0, min(start, time_ms // 1000), end)]

    def said(self, number: int, version: int = 3, output: object = None, age: object = 1.0) -> None:
        made = PredictionMade(
            prediction_id=f"p{number}",
            model="fraud",
            version=version,
            output=number % 10 / 10 if output is None else output,  # type: ignore[arg-type]
            features={"age": age, "plan": "ab"[number % 2]},  # type: ignore[dict-item]
        )
        value = write(
            "driftline.prediction.made.v1",
            made,
            id=f"e{number}",
            source="test",
            time_ms=1_000_000 - number,
        )
        self.add("predictions", value)

    def met(self, number: int, label: str, time_ms: int = 2_000_000, model: str = "fraud") -> None:
        told = FeedbackReceived(prediction_id=f"p{number}", model=model, label=label)
        value = write(
            *("driftline.feedback.received.v1", told),
            id=f"f{number}",
            source="test",
            time_ms=time_ms,
        )
        self.add("feedback", value)


@pytest.fixture
def log() -> DatedLog:
    """600 predictions of version 3, every second one labelled, at about their own rate."""
    log = DatedLog()
    for number in range(600):
        log.said(number)
        if number % 2:
            log.met(number, "fraud" if number * 7 % 10 < number % 10 else "honest")
    return log


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(registry_url=f"sqlite:///{tmp_path}/r.db", artefact_url=f"file:{tmp_path}/a")


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    with Registry(settings.registry_url) as opened:
        opened.upgrade()
        opened.add_model(FRAUD, who="test")
        yield opened


def read(log: DatedLog, first: int = 0, end: int = 600, **more: object) -> Seen:
    period_ms = (first * 1000, end * 1000)
    return read_period(log, FRAUD, Settings(), period_ms, **more)  # type: ignore[arg-type]


def test_a_period_holds_what_was_written_in_it_with_the_labels_that_came_since(
    log: DatedLog,
) -> None:
    seen = read(log, 100, 300)

    assert (seen.version, len(seen.said), seen.data.labelled) == (3, 200, 100)
    assert [(r.first, r.end) for r in seen.data.ranges] == [(100, 300)]
    assert [one.prediction_id for one in seen.said[:2]] == ["p299", "p298"]  # by event time
    assert seen.data.coverage == 0.5
    assert seen.data.start_ms == 1_000_000 - 299


def test_only_one_version_speaks_for_itself(log: DatedLog) -> None:
    for number in range(600, 650):
        log.said(number, version=4)

    assert read(log, end=650).version == 4
    assert len(read(log, end=650).said) == 50
    assert len(read(log, end=650, version=3).said) == 600


def test_what_is_erased_or_no_output_of_the_task_is_left_out(log: DatedLog) -> None:
    log.said(600, output=7.5)
    log.said(601, output=[0.5, 0.5])
    log.said(602, age="text")
    log.add("predictions", b"no json")
    erased = frozenset({erasure_of("fraud", "p5"), erasure_of("fraud", "p7")})

    assert len(read(log, end=700).said) == 600
    assert len(read(log, end=700, erased=erased).said) == 598


def test_the_newest_correction_of_a_label_counts(log: DatedLog) -> None:
    log.met(1, "fraud", 4_000_000)
    log.met(1, "honest", 3_000_000)
    log.met(1, "honest", 5_000_000, model="other")
    log.met(1, "neither", 1_000_000)
    log.add("feedback", b"no json")
    [one] = [one for one in read(log).said if one.prediction_id == "p1"]

    assert one.label == 1.0


def test_the_version_is_registered_as_its_predictions_call_it_and_is_champion(
    log: DatedLog, registry: Registry, settings: Settings
) -> None:
    assert make_reference(registry, settings, FRAUD, read(log), "ada") == 3

    state = registry.live("fraud")
    assert state is not None
    assert state.champion == 3
    card = state.card(3)
    assert card is not None
    found = profile.decode(fetch(card.profile_url, card.profile_digest, 10**6))
    assert (found.rows, found.validation.n) == (600, 300)
    [known] = registry.runs("fraud")
    assert (known.verdict, known.version, known.candidates[0].chosen) == ("accepted", 3, True)
    assert known.data is not None
    assert known.data.coverage == 0.5
    assert registry.live("fraud") == state
    refused = registry.promote("fraud", 2)
    assert (refused.applied, refused.reason) == (False, "version 2 is not registered")
    assert register(registry, "fraud") == 4


def test_a_reference_is_given_once(log: DatedLog, registry: Registry, settings: Settings) -> None:
    make_reference(registry, settings, FRAUD, read(log), "ada")

    with pytest.raises(TrainingFailed, match="version 3 has its reference already"):
        make_reference(registry, settings, FRAUD, read(log), "ada")
    assert [run.verdict for run in registry.runs("fraud")] == ["refused", "accepted"]
    with pytest.raises(RegistryMisuse, match="3 is registered already"):
        registry.register_version(
            "fraud",
            version=2,
            artefact_url="",
            artefact_digest="a" * 64,
            profile_url="",
            profile_digest="a" * 64,
        )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_reference_is_what_monitor_would_have_counted(task: str) -> None:
    """Live traffic like that of the period lies exactly on it; of how inputs go together, every
    other row does: the rest defined it."""
    known, model = examples(task), spec(task)  # type: ignore[arg-type]
    noise = np.random.default_rng(0)
    outputs = noise.dirichlet(np.ones(max(2, model.outputs)), 600)[:, : model.outputs]
    at = np.arange(0, 600, 3)
    observed = Observed(
        known.rows, outputs, known.times_ms, at, known.labels[at], known.weights[at]
    )

    found, candidate = reference(model, observed)

    binner = Binner(found, model)
    counts = binner.counts(known.rows, outputs)
    counts[joint.NAME] = binner.counts(known.rows[1::2], outputs[1::2])[joint.NAME]
    for signal in found.signals:
        assert tuple(counts[signal.name].tolist()) == signal.counts
    assert found.validation.n == sum(found.validation.loss_bins) == 200
    assert candidate.course[0].start_ms == 0
    assert candidate.course[-1].start_ms < 600 * HOUR_MS
    assert {"loss", "gain"} <= set(candidate.metrics)
    assert found.estimator is not None  # what it loses can be told before labels come


def test_too_little_is_refused_with_the_reason() -> None:
    known, model = examples(), spec()
    outputs = np.full((600, 1), 0.5)

    def observed(n: int, labels: int) -> Observed:
        part = known.part(0, n)
        at = np.arange(labels)
        return Observed(
            part.rows, outputs[:n], part.times_ms, at, part.labels[at], part.weights[at]
        )

    with pytest.raises(TrainingRefused, match="100 predictions, at least 200"):
        reference(model, observed(100, 100))
    with pytest.raises(TrainingRefused, match="29 of 600 predictions are labelled"):
        reference(model, observed(600, 29))


@pytest.mark.parametrize(
    ("task", "output"),
    [("binary", 1.5), ("binary", [0.5]), ("multiclass", [0.5, 0.5]), ("regression", float("inf"))],
)
def test_an_output_that_is_none_of_the_task_is_told_apart(task: str, output: object) -> None:
    if output == [0.5]:
        assert check_output(spec(), [0.5]) == (0.5,)
        return
    with pytest.raises(ValueError, match="output"):
        check_output(spec(task), output)  # type: ignore[arg-type]


CSV = "time,age,plan,output,label\n" + "".join(
    f"{1_700_000_000_000 + n * 1000},{n % 50},{'ab'[n % 2]},{n % 10 / 10},"
    f"{'' if n % 3 else ('fraud' if n * 7 % 10 < n % 10 else 'honest')}\n"
    for n in range(300)
)


def test_history_with_outputs_comes_from_a_file_as_well(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    path.write_text(CSV)
    seen = read_file(FRAUD, path, Columns(), version=2)

    assert (seen.version, len(seen.said), seen.data.labelled) == (2, 300, 100)
    assert seen.data.source == "h.csv"
    again = read_file(
        replace(FRAUD, training=replace(FRAUD.training, maximum_rows=50)), path, Columns()
    )
    assert [one.time_ms for one in again.said] == [one.time_ms for one in seen.said[-50:]]


def test_the_command_shows_what_it_found_and_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_in(tmp_path, monkeypatch)
    Path("h.csv").write_text(CSV)
    run("migrate")
    with Registry("sqlite:///driftline.db") as opened:
        opened.add_model(FRAUD, who="test")

    asked = run("models", "reference", "fraud", "--data", "h.csv")
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert "version 1 of fraud made 300 predictions" in asked.stderr
    done = run("models", "reference", "fraud", "--data", "h.csv", "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["live"]["champion"] == 1
    again = run("models", "reference", "fraud", "--data", "h.csv", "--yes")
    assert (again.exit_code, "has its reference already" in again.stderr) == (1, True)
    assert run("models", "reference", "fraud").exit_code == 2
    Path("h.csv").write_text(CSV + "1,2,a,9.5,fraud\n")
    wrong = run("models", "reference", "fraud", "--data", "h.csv", "--yes")
    assert (wrong.exit_code, "h.csv:302: the output is no probability" in wrong.stderr) == (2, True)
