"""Figures on held-out events: right, with intervals that hold, and by segment."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.examples import Examples
from models.losses import LOG_LOSS_SCALE
from models.runs import Figure
from models.spec import ModelSpec, Task
from models.validation import constant, mean, share, validate
from tests.streams import HOUR_MS, examples, spec


def segmented(task: Task = "binary") -> ModelSpec:
    return msgspec.structs.replace(spec(task), segments=("kind",))


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, Examples]:
    """Probabilities that are right, and what came true."""
    noise = np.random.default_rng(seed)
    said = noise.uniform(0.02, 0.98, n)
    labels = (noise.uniform(size=n) < said).astype(float)
    rows = examples(n=n).rows
    return said.reshape(-1, 1), Examples(rows, labels, np.arange(n) * HOUR_MS, np.ones(n))


def holds(figure: Figure, truth: float) -> bool:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low <= truth <= figure.high


def test_each_segment_has_the_figures_of_its_own_events() -> None:
    said, held_out = drawn(600)
    found = validate(segmented(), said, held_out, LOG_LOSS_SCALE)

    assert set(found.segments) == {"kind=u", "kind=v", "kind=w", "kind=(missing)"}
    at = [i for i, row in enumerate(held_out.rows) if row[1] == "v"]
    hits = (said[at, 0] >= 0.5) == held_out.labels[at]
    assert found.segments["kind=v"]["correct"].value == pytest.approx(hits.mean())


def test_a_segment_of_few_events_has_no_figures() -> None:
    said, held_out = drawn(500)  # 25 of them miss the segment's value

    assert "kind=(missing)" not in validate(segmented(), said, held_out, LOG_LOSS_SCALE).segments


def test_honest_probabilities_are_calibrated_and_others_are_not() -> None:
    said, held_out = drawn(4000)
    honest = validate(spec(), said, held_out, LOG_LOSS_SCALE).calibration
    bold = validate(spec(), np.round(said), held_out, LOG_LOSS_SCALE).calibration

    assert sum(group.n for group in honest) == 4000
    assert sum(holds(group.found, group.said) for group in honest) >= 8
    assert sum(holds(group.found, group.said) for group in bold) <= 2


def test_the_area_under_the_roc_curve_covers_the_truth_and_half_means_nothing_learnt() -> None:
    covered = []
    for seed in range(60):
        noise = np.random.default_rng(seed)
        labels = (noise.uniform(size=400) < 0.2).astype(float)
        scores = noise.uniform(size=(400, 1))
        held_out = Examples(examples(n=400).rows, labels, np.arange(400) * HOUR_MS, np.ones(400))
        area = validate(spec(), scores, held_out, LOG_LOSS_SCALE).metrics["roc_auc"]
        covered.append(holds(area, 0.5))

    assert 0.85 <= np.mean(covered) <= 1.0


def test_a_slice_of_one_class_has_no_area() -> None:
    said, held_out = drawn(100)
    one = held_out._replace(labels=np.ones(100))

    assert "roc_auc" not in validate(spec(), said, one, LOG_LOSS_SCALE).metrics


def test_intervals_cover_the_truth_and_a_perfect_score_is_not_certain() -> None:
    covered = []
    for seed in range(200):
        hits = (np.random.default_rng(seed).uniform(size=60) < 0.9).astype(float)
        covered.append(holds(share(hits, np.ones(60)), 0.9))
    perfect = share(np.ones(60), np.ones(60))

    assert 0.9 <= np.mean(covered) <= 1.0
    assert perfect.value == perfect.high == 1.0
    assert perfect.low == pytest.approx(0.940, abs=0.001)  # 60 / (60 + 1.96^2)


def test_dependent_events_and_unequal_weights_widen_an_interval() -> None:
    noise = np.random.default_rng(0)
    independent = noise.normal(size=4000)
    walking = np.repeat(noise.normal(size=40), 100)
    one = np.ones(4000)

    def width(figure: Figure) -> float:
        return (figure.high or 0) - (figure.low or 0)

    assert width(mean(walking, one)) > 5 * width(mean(independent, one))
    assert width(mean(independent, noise.pareto(1.0, 4000) + 0.01)) > 2 * width(
        mean(independent, one)
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_course_tells_when_it_went_wrong(task: Task) -> None:
    known = examples(task)
    outputs = constant(spec(task), known, 600)
    if task == "regression":
        outputs = known.labels.reshape(-1, 1) + np.where(np.arange(600) < 300, 0, 5).reshape(-1, 1)
    found = validate(spec(task), outputs, known, LOG_LOSS_SCALE)

    assert sum(stretch.n for stretch in found.course) == 600
    assert [stretch.start_ms for stretch in found.course] == [n * 50 * HOUR_MS for n in range(12)]
    if task == "regression":
        assert [stretch.loss.value for stretch in found.course] == [0] * 6 + [5] * 6


def test_the_gain_over_the_constant_is_judged_on_the_same_events() -> None:
    """Its interval is narrower than those of the two losses would suggest."""
    said, held_out = drawn(2000)
    base = constant(spec(), held_out, 2000)
    better = validate(spec(), said, held_out, LOG_LOSS_SCALE, base).metrics
    nothing = validate(spec(), base, held_out, LOG_LOSS_SCALE, base).metrics

    constant_loss = validate(spec(), base, held_out, LOG_LOSS_SCALE).metrics["log_loss"].value
    assert better["gain"].value == pytest.approx(constant_loss - better["log_loss"].value)
    assert (better["gain"].low or 0) > 0.1
    assert nothing["gain"] == Figure(0.0, 0.0, 0.0)


def test_the_constant_says_the_shares_of_the_classes_or_the_median() -> None:
    _, held_out = drawn(100)
    shares = constant(spec(), held_out._replace(labels=np.repeat([0.0, 1.0], [79, 21])), 3)
    values = held_out._replace(labels=np.arange(100.0))
    heavy = values._replace(weights=np.where(np.arange(100) == 99, 1000.0, 1.0))

    assert shares.tolist() == [[22 / 102]] * 3
    assert constant(spec("multiclass"), examples("multiclass"), 2).sum(axis=1).tolist() == [1, 1]
    assert constant(spec("regression"), values, 1).tolist() == [[49.0]]
    assert constant(spec("regression"), heavy, 1).tolist() == [[99.0]]
