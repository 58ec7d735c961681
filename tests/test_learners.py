"""The algorithms, and the short form of the linear one."""

import numpy as np
import pytest

from models.additive import additive
from models.examples import Examples
from models.features import Coder, Row
from models.learners import LEARNERS
from models.spec import Feature, ModelSpec, Task
from models.threads import one_thread
from tests.streams import examples, spec

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As in `models.training.fit`: a team of threads makes small fits many times slower."""
    one_thread()


ODD: list[Row] = [
    (None, None, None),
    (1e30, "new", -1e30),
    (0.0, "u", None),
    (-2.5, "w", 3.0),
    (None, "v", 0.1),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_learner_fits_nulls_and_categories_of_every_task(name: str, task: Task) -> None:
    known = examples(task)
    coder = Coder.fit(spec(task), known.rows)

    pipeline = LEARNERS[name](spec(task), 0).fit(coder.matrix(known.rows), known.labels)

    assert pipeline.score(coder.matrix(known.rows), known.labels) > 0.8
    assert np.isfinite(pipeline.predict(coder.matrix(ODD))).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "gaps", ["both", "two of each", "numbers", "categories", "empty column", "no nulls"]
)
def test_the_short_form_gives_what_the_pipeline_gives(task: Task, gaps: str) -> None:
    """Imputing, indicators, scaling, one-hot and the estimator, on all kinds of columns."""
    model, known, odd = spec(task), examples(task), ODD
    if gaps == "numbers":
        model, known = _only(model, known, (0, 2))
        odd = [_at(row, (0, 2)) for row in ODD]
    elif gaps == "two of each":
        model, known = _only(model, known, (0, 1, 2, 1))
        shifted = zip(known.rows, [*known.rows[1:], known.rows[0]], strict=True)
        known = known._replace(rows=[(*row[:3], other[1]) for row, other in shifted])
        odd = [_at(row, (0, 1, 2, 1)) for row in ODD]
    elif gaps == "categories":
        model, known = _only(model, known, (1,))
        odd = [_at(row, (1,)) for row in ODD]
    elif gaps == "empty column":
        known = known._replace(rows=[(a, kind, None) for a, kind, _ in known.rows])
    elif gaps == "no nulls":
        full: list[Row] = [(a, kind or "u", b or 0.0) for a, kind, b in known.rows]
        known = known._replace(rows=full)
    coder = Coder.fit(model, known.rows)
    pipeline = LEARNERS["linear"](model, 0).fit(coder.matrix(known.rows), known.labels)
    short = additive(pipeline, coder)
    assert short

    for rows in (known.rows, odd):
        matrix = coder.matrix(rows)
        say = "predict" if task == "regression" else "predict_proba"
        np.testing.assert_allclose(
            getattr(short, say)(matrix), getattr(pipeline, say)(matrix), rtol=1e-9, atol=1e-12
        )


def test_other_pipelines_have_no_short_form() -> None:
    known = examples()
    coder = Coder.fit(spec(), known.rows)

    boosted = LEARNERS["hist_gradient_boosting"](spec(), 0)
    boosted.fit(coder.matrix(known.rows), known.labels)

    assert additive(boosted, coder) is None


def _only(model: ModelSpec, known: Examples, places: tuple[int, ...]) -> tuple[ModelSpec, Examples]:
    features = tuple(
        Feature(name=f"f{i}", type=model.features[place].type) for i, place in enumerate(places)
    )
    kept = ModelSpec(name="m", task=model.task, classes=model.classes, features=features)
    return kept, known._replace(rows=[_at(row, places) for row in known.rows])


def _at(row: Row, places: tuple[int, ...]) -> Row:
    return tuple(row[place] for place in places)
