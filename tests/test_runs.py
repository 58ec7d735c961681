"""Every training attempt is one record that survives crashes and can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from models.careers import career
from models.comparing import Comparison, Difference
from models.registry import Outcome, Registry, RegistryMisuse, UnknownModel
from models.runs import Candidate, DataRange, Figure, OffsetRange, library_versions
from tests.registries import BACKENDS, CHURN, DIGEST, Clock, database_url, register

DATA = DataRange(
    ranges=[OffsetRange(topic="examples", partition=2, first=10, end=510)],
    start_ms=1_000,
    end_ms=900_000,
    predictions=600,
    labelled=540,
    rows=500,
    classes={"no": 400, "yes": 100},
    digest=DIGEST,
)
TRIED = (
    Candidate(
        name="logistic_regression",
        metrics={"log_loss": Figure(0.31, 0.29, 0.33)},
        segments={"city=Oslo": {"log_loss": Figure(0.4)}},
        fit_seconds=0.2,
    ),
    Candidate(
        name="hist_gradient_boosting", metrics={"log_loss": Figure(0.28, 0.26, 0.3)}, chosen=True
    ),
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=BACKENDS)
def registry(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    with Registry(database_url(request, request.param, tmp_path), clock=clock) as registry:
        registry.upgrade()
        registry.add_model(CHURN)
        yield registry


def test_a_run_is_one_record_of_everything_it_was_given_and_gave(
    registry: Registry, clock: Clock
) -> None:
    run_id = registry.begin_run(
        "churn",
        cause="harm",
        command_id="c-1",
        alert_id="a-1",
        who="trainer",
        evidence={"e_value": 21.5, "ticks": [3, 4]},
        parameters={"holdout_share": 0.25},
        seed=7,
        expected_generation=1,
    )
    running = registry.run(run_id)
    assert running is not None
    assert (running.verdict, running.duration_seconds) == ("running", None)
    registry.record_run(run_id, data=DATA, parameters={"maximum_rows": 1000})
    clock.ms += 2_500
    version = register(registry, run_id=run_id)
    assert registry.finish_run(
        run_id,
        "accepted",
        reason="best on the newest slice",
        candidates=TRIED,
        artefact_digest=DIGEST,
        profile_digest=DIGEST,
    )
    run = registry.run(run_id)
    assert run is not None
    assert (run.cause, run.command_id, run.alert_id, run.who) == ("harm", "c-1", "a-1", "trainer")
    assert (run.evidence, run.seed) == ({"e_value": 21.5, "ticks": [3, 4]}, 7)
    assert run.parameters == {"holdout_share": 0.25, "maximum_rows": 1000}
    assert (run.data, run.candidates) == (DATA, list(TRIED))
    assert DATA.coverage == 0.9
    assert run.libraries == library_versions()
    assert (run.generation, run.spec_revision, run.duration_seconds) == (1, 1, 2.5)
    assert (run.verdict, run.version, run.artefact_digest) == ("accepted", version, DIGEST)
    assert registry.versions("churn")[0].run_id == run_id
    assert registry.runs("churn") == [run]


def test_a_command_delivered_again_finds_its_run_and_the_data_it_was_to_read(
    registry: Registry,
) -> None:
    """A trainer that died in a fit is followed by one that fits the same data."""
    first = registry.begin_run("churn", cause="harm", command_id="c-1")
    registry.record_run(first, data=DATA)
    again = registry.begin_run("churn", cause="harm", command_id="c-1")
    assert again == first
    later = DataRange(rows=1)
    assert registry.record_run(again, data=later).data == DATA
    run = registry.run(first)
    assert run is not None
    assert run.attempts == 2


def test_a_run_yields_one_version_however_often_it_is_registered(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="harm", command_id="c-1")
    assert [register(registry, run_id=run_id) for _ in range(3)] == [1, 1, 1]
    assert register(registry) == 2


def test_the_first_verdict_stands(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="harm", command_id="c-1")
    assert registry.finish_run(run_id, "refused", reason="one class")
    assert not registry.finish_run(run_id, "accepted")
    registry.begin_run("churn", cause="harm", command_id="c-1")
    run = registry.run(run_id)
    assert run is not None
    assert (run.verdict, run.reason, run.attempts) == ("refused", "one class", 1)


def test_a_run_asked_for_on_an_older_generation_is_void_from_the_start(registry: Registry) -> None:
    registry.promote("churn", register(registry))
    run = registry.run(registry.begin_run("churn", cause="harm", expected_generation=1))
    assert run is not None
    assert (run.verdict, run.reason) == ("void", "decided on generation 1, it is 2 now")
    assert run.duration_seconds == 0


def test_runs_without_a_command_are_runs_of_their_own(registry: Registry) -> None:
    runs = [registry.begin_run("churn", cause="request") for _ in range(3)]
    assert len(set(runs)) == 3
    assert [run.run_id for run in registry.runs(limit=2)] == [runs[2], runs[1]]


def test_hostile_words_in_a_refusal_are_kept_not_raised(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="\0", evidence={"x": "\0"})
    assert registry.finish_run(run_id, "failed", reason="worker said \0\ud800")


def test_what_makes_no_sense_raises(registry: Registry) -> None:
    with pytest.raises(UnknownModel):
        registry.begin_run("nobody", cause="harm")
    with pytest.raises(RegistryMisuse, match="no run 99"):
        registry.finish_run(99, "accepted")
    with pytest.raises(RegistryMisuse, match="no run 99"):
        registry.compare_runs(99, 1)
    run_id = registry.begin_run("churn", cause="harm")
    with pytest.raises(RegistryMisuse, match="running"):
        registry.finish_run(run_id, "running")
    registry.add_model(replace(CHURN, name="other"))
    with pytest.raises(RegistryMisuse, match="is of model 'churn'"):
        register(registry, "other", run_id=run_id)
    assert registry.run(99) is None


@pytest.fixture
def comparison(registry: Registry, clock: Clock) -> Comparison:
    """The second run has more data, another seed and other candidates; the rest is the same."""
    a = registry.begin_run("churn", cause="harm", who="trainer", seed=1, parameters={"rows": 9})
    registry.finish_run(a, "refused", reason="too few", data=DATA, candidates=TRIED[:1])
    b = registry.begin_run("churn", cause="harm", who="trainer", seed=2, parameters={"rows": 9})
    more = DataRange(
        ranges=[OffsetRange(topic="examples", partition=2, first=10, end=900)],
        predictions=1000,
        labelled=900,
        rows=900,
    )
    clock.ms += 1_000
    registry.finish_run(b, "accepted", reason="best", data=more, candidates=TRIED)
    return registry.compare_runs(a, b)


def test_a_comparison_shows_what_differs_with_the_change(comparison: Comparison) -> None:
    assert comparison.section("outcome") == [
        Difference(section="outcome", field="verdict", a="refused", b="accepted"),
        Difference(section="outcome", field="reason", a="too few", b="best"),
    ]
    data = {difference.field: difference for difference in comparison.section("data")}
    assert (data["rows"].a, data["rows"].b, data["rows"].change) == (500, 900, 400)
    assert (data["examples[2]"].a, data["examples[2]"].b) == ("10..510", "10..900")
    assert "coverage" not in data
    assert [d.field for d in comparison.section("parameters")] == ["seed"]
    assert comparison.section("cost")[0].change == 1.0


def test_a_comparison_matches_candidates_by_name(comparison: Comparison) -> None:
    chosen = {difference.field: difference for difference in comparison.section("quality")}
    assert (chosen["log_loss"].a, chosen["log_loss"].b) == (None, Figure(0.28, 0.26, 0.3))
    assert comparison.section("candidates") == []  # the other one did as well as before


def test_what_was_chosen_is_compared_under_whatever_name(registry: Registry) -> None:
    """Figures whose intervals meet are not called better."""
    worse = replace(TRIED[0], chosen=True, metrics={"log_loss": Figure(0.5, 0.48, 0.52)})
    runs = [registry.begin_run("churn", cause="harm") for _ in range(3)]
    near = replace(TRIED[1], metrics={"log_loss": Figure(0.29, 0.27, 0.31)})
    for run, tried in zip(runs, (worse, TRIED[1], near), strict=True):
        registry.finish_run(run, "accepted", candidates=[tried])

    def told(a: int, b: int) -> Difference:
        return registry.compare_runs(a, b).section("quality")[-1]

    assert told(runs[0], runs[1]).change == pytest.approx(-0.22)
    assert told(runs[0], runs[1]).reading == "better"
    assert told(runs[1], runs[0]).reading == "worse"
    assert told(runs[1], runs[2]).reading == "within the noise"
    [segment] = registry.compare_runs(runs[1], runs[0]).section("segments")
    assert (segment.field, segment.b) == ("city=Oslo log_loss", Figure(0.4))


def test_the_career_of_a_version_tells_what_became_of_it_and_why(
    registry: Registry, clock: Clock
) -> None:
    registry.promote("churn", register(registry))
    run_id = registry.begin_run("churn", cause="harm")
    register(registry, run_id=run_id)
    register(registry)
    steps: list[Callable[[], Outcome]] = [
        lambda: registry.challenge("churn", 2, who="driftline"),
        lambda: registry.challenge("churn", 3, who="ada"),
        lambda: registry.promote("churn", 2, who="driftline", evidence={"e_value": 41.0}),
        lambda: registry.reject("churn", 3, who="driftline"),
        lambda: registry.rollback("churn", who="driftline", reason="worse"),
    ]
    for step in steps:
        clock.ms += 1_000
        assert step().applied
    run = registry.run(run_id)
    assert run is not None

    turns = registry.career(run)

    assert [(turn.part, turn.action, turn.who) for turn in turns] == [
        ("challenger", "challenge", "driftline"),
        ("champion", "promote", "driftline"),
        ("none", "rollback", "driftline"),
    ]
    assert turns[1].evidence == {"e_value": 41.0}
    assert [turn.changed_ms for turn in turns] == [1_001_000, 1_003_000, 1_005_000]
    assert [turn.part for turn in career(registry.history("churn"), 1)] == [
        "champion",
        "previous",
        "champion",
    ]
    refused = registry.run(registry.begin_run("churn", cause="harm"))
    assert refused is not None
    assert registry.career(refused) == []
    assert registry.spec_of(run) == CHURN


def test_a_running_run_tells_what_it_does_until_it_has_its_verdict(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="harm")
    assert registry.tell_run(run_id, "fitting linear (1 of 2)")
    run = registry.run(run_id)
    assert run is not None
    assert (run.verdict, run.reason) == ("running", "fitting linear (1 of 2)")
    registry.finish_run(run_id, "refused", reason="one class")
    assert not registry.tell_run(run_id, "fitting linear (2 of 2)")
    run = registry.run(run_id)
    assert run is not None
    assert run.reason == "one class"


def test_a_comparison_names_what_is_the_same(comparison: Comparison) -> None:
    assert comparison.same == ["candidates", "libraries", "cause"]


def test_a_run_compared_with_itself_differs_in_nothing(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="harm")
    assert registry.compare_runs(run_id, run_id).differences == []
