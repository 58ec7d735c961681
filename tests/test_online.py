"""Learners that are taught event by event: the order of labels, and going on from a version."""

from __future__ import annotations

import numpy as np
import pytest

from models import serving
from models.examples import Examples
from models.features import Coder
from models.online import teach
from models.serving import ServingModel
from models.spec import Task
from tests.streams import HOUR_MS, examples, spec

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")


def lesson(of: Examples, task: Task, before: ServingModel | None = None) -> ServingModel:
    model = spec(task)
    return teach(model, Coder.fit(model, of.rows), of, before, passes=1)


def weights(model: ServingModel) -> np.ndarray:
    estimator = model.pipeline.named_steps["estimate"]
    return np.column_stack([np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)])


@pytest.mark.parametrize("task", TASKS)
def test_it_learns(task: Task) -> None:
    known = examples(task, n=3000)
    model = lesson(known, task)
    said = model.predict(known.rows)

    assert model.taught is not None
    assert (model.taught.events, model.taught.until_ms) == (3000, 2999 * HOUR_MS)
    if task == "regression":
        assert np.abs(said[:, 0] - known.labels).mean() < 0.6 * np.abs(known.labels).mean()
    else:
        likeliest = said.argmax(axis=1) if task == "multiclass" else said[:, 0] >= 0.5
        assert (likeliest == known.labels).mean() > 0.8


@pytest.mark.parametrize("task", TASKS)
def test_two_lessons_teach_what_one_does_and_a_version_keeps_all_of_it(task: Task) -> None:
    """Stored and loaded between them, so nothing of what was learnt lies outside the artefact."""
    known = examples(task, n=900)
    first = lesson(known.part(0, 300), task)
    at_once = lesson(known, task, first)
    half = serving.load(serving.dump(lesson(known.part(0, 600), task, first)), spec(task))
    in_two = lesson(known, task, half)

    np.testing.assert_allclose(weights(in_two), weights(at_once), rtol=1e-9)
    assert in_two.taught == at_once.taught
    assert in_two.taught is not None
    assert in_two.taught.events == 900
    assert not np.allclose(weights(half), weights(at_once))


def test_labels_are_learnt_in_the_order_in_which_they_came() -> None:
    known = examples(n=300)
    mixed = np.random.default_rng(1).permutation(300).astype(np.int64) * HOUR_MS
    late = known._replace(known_ms=mixed)
    order = np.argsort(mixed)
    sorted_by_label = Examples(
        [known.rows[i] for i in order], known.labels[order], mixed[order], known.weights[order]
    )

    assert np.allclose(weights(lesson(late, "binary")), weights(lesson(sorted_by_label, "binary")))
    assert not np.allclose(weights(lesson(late, "binary")), weights(lesson(known, "binary")))


def test_a_label_is_learnt_once_whatever_the_window_holds() -> None:
    known = examples(n=600)
    first = lesson(known.part(0, 400), "binary")

    again = lesson(known.part(200, 600), "binary", first)

    assert again.taught is not None
    assert again.taught.events == 600


def test_nothing_new_is_no_lesson() -> None:
    known = examples(n=300)
    with pytest.raises(ValueError, match="nothing was labelled since"):
        lesson(known, "binary", lesson(known, "binary"))


def test_weights_count_or_are_refused() -> None:
    known = examples(n=600)
    heavy = known._replace(weights=np.where(known.labels == 1, 5.0, 1.0))
    share = lesson(heavy, "binary").predict(known.rows).mean()

    assert share > lesson(known, "binary").predict(known.rows).mean() + 0.05
    several = examples("multiclass")._replace(weights=np.linspace(1.0, 2.0, 600))
    with pytest.raises(ValueError, match="takes no weights"):
        lesson(several, "multiclass")
