"""A live model gains a feature: older records and versions do without it, nothing else moves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from models import serving
from models.changes import revision_refusal
from models.examples import Examples
from models.features import Coder, Row, check_row
from models.profiling import FEWEST_ROWS, Binner
from models.serving import BadArtefact
from models.spec import Feature, ModelSpec, Training, check
from models.training import Trained, fit
from stream.core.decoding import Decoded, decode
from stream.core.deltas import Deltas
from stream.core.folding import Made, fold_predictions
from stream.core.monitor import MonitorProcessor
from stream.core.packing import kind_of
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Record
from stream.core.scoring import ScoreProcessor
from stream.core.sources import Source
from stream.loading import Live
from tests.fleets import FakeLive

NOW = 1_700_000_000_000
OLD = ModelSpec(
    name="loans",
    task="binary",
    classes=("paid", "lost"),
    features=(Feature(name="age"), Feature(name="plan", type="categorical")),
    training=Training(candidates=("logistic_regression", "hist_gradient_boosting")),
)
CITY = Feature(name="city", type="categorical", optional=True)
INCOME = Feature(name="income", optional=True)
NEW = replace(OLD, features=(*OLD.features, INCOME, CITY))
PLANS, CITIES = ("gold", "free"), ("Ulm", "Bonn")


def fleet_of(spec: ModelSpec) -> Fleet:
    return {spec.name: FakeLive(spec)}


def record(offset: int, features: dict[str, Any], **more: Any) -> Record:
    said = {"prediction_id": f"r{offset}", "model": "loans", "features": features, **more}
    return Record(offset, NOW, b"k", json.dumps(said).encode())


def rows_of(decoded: Decoded) -> list[Row]:
    assert not decoded.refused
    assert not decoded.unknown
    return [event.row for event in decoded.events]


# --- what a spec may become ----------------------------------------------------------------------

ALLOWED = {
    "optional ones at the end": NEW.features,
    "one that was required is optional": (replace(OLD.features[0], optional=True), OLD.features[1]),
}
REFUSED = {
    "required": ((*OLD.features, Feature(name="city")), "say optional = true"),
    "removed": (OLD.features[:1], "keep what is no longer known, with optional = true"),
    "of another kind": (
        (OLD.features[0], Feature(name="plan")),
        "give it as numeric under another name",
    ),
    "put in front": ((INCOME, *OLD.features), "put new features last"),
    "reordered": (OLD.features[::-1], "keep the order"),
}


@pytest.mark.parametrize("case", sorted(ALLOWED))
def test_a_model_with_versions_may_ask_for_less(case: str) -> None:
    assert revision_refusal(OLD, replace(OLD, features=ALLOWED[case]), has_versions=True) == ""


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_versions_or_records_cannot_follow_is_refused_and_says_what_to_do(case: str) -> None:
    features, advice = REFUSED[case]
    asked = replace(OLD, features=features)
    assert advice in revision_refusal(OLD, asked, has_versions=True)
    assert revision_refusal(OLD, asked, has_versions=False) == ""


def test_records_in_flight_may_lack_what_was_optional_so_it_stays() -> None:
    required = replace(NEW, features=(*OLD.features, replace(INCOME, optional=False), CITY))
    assert "leave it optional" in revision_refusal(NEW, required, has_versions=True)


def test_something_is_asked_of_every_record() -> None:
    with pytest.raises(ValueError, match="at least one is not optional"):
        check(replace(OLD, features=(INCOME,)))


# --- records -------------------------------------------------------------------------------------

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numeric": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
    "categorical": st.none() | st.sampled_from(("", "gold", "ü", 3, True)),
}


@st.composite
def specs_and_records(draw: st.DrawFn) -> tuple[ModelSpec, list[dict[str, Any]]]:
    """A spec with optional features anywhere, and features of records that leave out some."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(("numeric", "categorical")), st.booleans())))
    features = [Feature(name="always"), Feature(name="x", optional=True)]
    features += [
        Feature(name=f"n{i}", type=kind, optional=optional)  # type: ignore[arg-type]
        for i, (kind, optional) in enumerate(kinds[:6])
    ]
    spec = replace(OLD, features=tuple(draw(st.permutations(features))))
    whole = st.fixed_dictionaries({f.name: VALUES[f.type] for f in spec.features})
    given_up = st.sets(st.sampled_from([f.name for f in spec.features if f.optional]))
    records = [
        {name: value for name, value in draw(whole).items() if name not in left_out}
        for left_out in draw(st.lists(given_up, min_size=1, max_size=8))
    ]
    return spec, records


@settings(max_examples=50)  # decoders are made anew for each spec
@given(specs_and_records(), st.sampled_from(("requests", "predictions")))
def test_what_is_left_out_is_null_wherever_it_stands(
    drawn: tuple[ModelSpec, list[dict[str, Any]]], entity: str
) -> None:
    """Read as columns, alone, and as a stored example: the row that explicit nulls give."""
    spec, narrow = drawn
    fleet, core = fleet_of(spec), CoreSettings()
    more = {} if entity == "requests" else {"version": 1, "output": 0.5}
    whole = [{name: one.get(name) for name in spec.feature_names} for one in narrow]
    records = [record(i, one, **more) for i, one in enumerate(narrow)]

    rows = rows_of(decode(entity, records, fleet, core))

    said = [record(i, one, **more) for i, one in enumerate(whole)]
    assert rows == rows_of(decode(entity, said, fleet, core))
    alone = [decode(entity, [one], fleet, core) for one in records]
    assert rows == [row for one in alone for row in rows_of(one)]
    assert rows == [check_row(spec, one) for one in narrow]


@settings(max_examples=50)
@given(specs_and_records())
def test_what_is_not_optional_may_not_be_left_out(
    drawn: tuple[ModelSpec, list[dict[str, Any]]],
) -> None:
    spec, (first, *_) = drawn
    del first["always"]
    decoded = decode("requests", [record(0, first)], fleet_of(spec), CoreSettings())
    assert [refused.reason for _, refused in decoded.refused] == ["bad-features"]
    with pytest.raises(ValueError, match="missing: 'always'"):
        check_row(spec, first)


def test_a_feature_that_a_worker_has_not_heard_of_waits_for_it() -> None:
    """A producer may know of the revision sooner; without one the record is refused in the end."""
    asked = {"age": 1, "plan": "gold"}
    batch = Batch("requests", 0, [record(0, asked), record(1, asked | {"income": 5.0})])
    partitions = dict.fromkeys(("requests", "predictions", "summaries"), 1)

    def answered(revised: ModelSpec) -> list[str]:
        processor = ScoreProcessor(Context(0, partitions, CoreSettings()))
        outputs = processor.apply(batch, fleet_of(OLD))
        assert [output.entity for output in outputs] == ["predictions"]
        outputs = processor.advance(NOW, True, fleet_of(OLD))
        outputs += processor.advance(NOW + 1_000, True, fleet_of(revised))
        outputs += processor.advance(NOW + 60_000, True, fleet_of(revised))
        return [output.entity for output in outputs if output.entity != "summaries"]

    assert answered(NEW) == ["predictions"]
    assert answered(OLD) == ["requests.dlq"]


# --- versions ------------------------------------------------------------------------------------


def examples(spec: ModelSpec, first: int, rows: int = 1200) -> Examples:
    """Labels that follow age, and income where there is one: from row `first` on."""
    dice = np.random.default_rng(3)
    age, income = dice.normal(size=rows), dice.normal(size=rows)
    labels = (age + 2 * income + dice.normal(size=rows) > 0).astype(float)
    plans, cities = dice.choice(PLANS, rows).tolist(), dice.choice(CITIES, rows).tolist()
    found: list[Row] = []
    for i in range(rows):
        extra = (float(income[i]), cities[i]) if i >= first else (None, None)
        found.append((float(age[i]), plans[i], *extra)[: len(spec.features)])
    times_ms = 60_000 * np.arange(rows, dtype=np.int64)
    return Examples(found, labels, times_ms, np.ones(rows), times_ms)


@pytest.fixture(scope="module")
def before() -> Trained:
    """A version of the spec without the new features."""
    return fit(OLD, examples(OLD, 0), 1)


@pytest.fixture(scope="module")
def after() -> Trained:
    """A version of the spec with them; older examples know nothing of them."""
    return fit(NEW, examples(NEW, 300), 1)


def test_an_older_version_says_the_same_of_wider_rows(before: Trained) -> None:
    narrow, wide = examples(OLD, 0).rows, examples(NEW, 0).rows
    model = serving.load(before.artefact, NEW)
    model.warm_up()
    assert np.array_equal(model.predict(wide), serving.load(before.artefact, OLD).predict(narrow))


def test_values_that_a_version_never_saw_shift_no_others() -> None:
    """Where all are numbers rows become a matrix in one pass."""
    matrix = Coder((None, None)).matrix([(1.0, 2.0, 9.0), (3.0, None, 9.0)])
    assert np.array_equal(matrix, [[1.0, 2.0], [3.0, np.nan]], equal_nan=True)


def test_only_optional_features_may_be_unknown_to_a_version(before: Trained) -> None:
    required = replace(OLD, features=(*OLD.features, Feature(name="city")))
    with pytest.raises(BadArtefact, match="not this spec's"):
        serving.load(before.artefact, required)


def test_a_retrain_on_records_of_both_kinds_learns_the_new_feature(
    before: Trained, after: Trained
) -> None:
    assert after.metrics["log_loss"].value < before.metrics["log_loss"].value - 0.1
    model = serving.load(after.artefact, NEW)
    low, high = model.predict([(0.0, "gold", -2.0, "Ulm"), (0.0, "gold", 2.0, "Ulm")])[:, 0]
    assert high - low > 0.5


@pytest.mark.parametrize("learner", ["logistic_regression", "hist_gradient_boosting"])
def test_a_version_can_be_fitted_before_anyone_sends_the_new_feature(learner: str) -> None:
    """It has no reference for what nobody has seen: the first value of it is no drift."""
    spec = replace(NEW, training=Training(candidates=(learner,)))
    rows = len(examples(spec, 0).rows)
    trained = fit(spec, examples(spec, rows), 1)
    serving.load(trained.artefact, spec).warm_up()
    assert trained.profile.signal("income") is None
    assert Binner(trained.profile, spec).places == (0, 1)


def test_an_online_learner_begins_anew_where_inputs_were_gained() -> None:
    online = Training(candidates=("online_linear",))
    first = fit(replace(OLD, training=online), examples(OLD, 0), 1)
    spec = replace(NEW, training=online)
    champion = serving.load(first.artefact, spec)
    second = serving.load(fit(spec, examples(NEW, 300), 1, champion=champion).artefact, spec)
    assert (champion.coder.width, second.coder.width) == (2, 4)


# --- references ----------------------------------------------------------------------------------


def test_a_reference_begins_with_the_first_record_that_has_the_feature(after: Trained) -> None:
    """Else the share of nulls of the time before would be what is expected, and its end drift."""
    income, age = after.profile.signal("income"), after.profile.signal("age")
    assert income is not None
    assert age is not None
    assert (sum(income.counts), income.counts[-1]) == (900, 0)
    assert sum(age.counts) == 1200
    assert income.deflation == pytest.approx(1.0)


def test_a_feature_that_came_too_lately_has_no_reference_yet() -> None:
    young = fit(NEW, examples(NEW, 1200 - FEWEST_ROWS + 1), 1).profile
    assert [young.signal(name) for name in ("income", "city")] == [None, None]


def counted(spec: ModelSpec, trained: Trained, rows: list[Row], together: int) -> dict[str, Any]:
    """Signals as monitor counts them, so many predictions at once."""
    profile = trained.profile
    facets = len(profile.slices.facets) if profile.slices else 0
    kind = kind_of(spec, 1, (), profile.validation.loss_scale, facets)
    source, deltas = Source(kind, spec, profile), Deltas()
    for start in range(0, len(rows), together):
        some = rows[start : start + together]
        n = len(some)
        codes = [source.codes(row) for row in some]
        fold_predictions(Made([source] * n, [1_000] * n, codes, some, [(0.25,)] * n), deltas)
    (told,) = [summary for summary in deltas.take(0) if not summary.segment]
    return {name: list(counts) for name, counts in told.signals.items()}


@pytest.mark.parametrize("together", [1, 100])
def test_an_older_version_is_watched_as_before(before: Trained, together: int) -> None:
    """By every signal that it knows, whatever records bring beside them."""
    narrow = counted(OLD, before, list(examples(OLD, 0, 100).rows), together)
    assert counted(NEW, before, list(examples(NEW, 50, 100).rows), together) == narrow
    assert "age" in narrow


@pytest.mark.parametrize("together", [1, 100])
def test_nulls_of_records_that_lack_a_known_feature_are_counted(
    after: Trained, together: int
) -> None:
    seen = counted(NEW, after, list(examples(NEW, 70, 100).rows), together)
    assert (sum(seen["income"]), seen["income"][-1]) == (100, 70)


# --- under way -----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.tuples(*[st.integers(0, 8)] * 3))
def test_nothing_is_lost_whoever_hears_first_of_the_revision(
    before: Trained, moments: tuple[int, int, int]
) -> None:
    """Score, monitor and the producer know of the feature from different batches on."""
    knows_score, knows_monitor, knows_producer = moments
    model = serving.load(before.artefact, OLD)
    fleets = [
        {
            "loans": Live(
                FakeLive(spec, generation=generation).lifecycle,
                {1: model},
                {1: before.profile},
            )
        }
        for generation, spec in ((1, OLD), (2, NEW))
    ]
    entities = ("requests", "predictions", "feedback", "examples", "summaries")
    context = Context(0, dict.fromkeys(entities, 1), CoreSettings())
    score, monitor = ScoreProcessor(context), MonitorProcessor(context)
    made: list[Output] = []
    told: list[Output] = []
    for number in range(10):
        sent: dict[str, Any] = {"age": 1.0, "plan": "gold"}
        if number >= knows_producer:
            sent["income"] = float(number)
        asked = [record(2 * number, sent), record(2 * number + 1, {"age": 2.0, "plan": "free"})]
        fleet = fleets[number >= knows_score]
        outputs = score.apply(Batch("requests", 0, asked), fleet)
        outputs += score.advance(NOW + 100 * number, True, fleet)
        said = [one for one in outputs if one.entity != "summaries"]
        batch = [Record(len(made) + i, NOW, b"k", one.value) for i, one in enumerate(said)]
        made += said
        fleet = fleets[number >= knows_monitor]
        told += monitor.apply(Batch("predictions", 0, batch), fleet)
        told += monitor.advance(NOW + 100 * number, True, fleet)
    told += monitor.advance(NOW + 100_000, True, fleets[1])

    values = [json.loads(one.value or b"") for one in made]
    assert {one.entity for one in made} == {"predictions"}
    ids = sorted(value["data"]["prediction_id"] for value in values)
    assert ids == sorted(f"r{number}" for number in range(20))
    assert {one.entity for one in told} == {"summaries"}
    counted = [json.loads(one.value or b"")["data"] for one in told]
    assert sum(one.get("predictions", 0) for one in counted if not one.get("segment")) == 20
