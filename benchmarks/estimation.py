"""Accuracy told without labels, against the truth: Driftline's estimator beside CBPE.

    python -m benchmarks.estimation [--data FOLDER] [--quick] [--json]

A model is trained on the beginning of a stream, its estimator and CBPE learn from the slice that it
was not fitted on, and both then say without labels how accurate it is on each chunk of the rest.
CBPE is NannyML's confidence-based performance estimation: probabilities calibrated by isotonic
regression on the reference, whose mean confidence is the accuracy. "Constant" says that accuracy is
what it was on the reference. Bikes and flights come with the demo; further streams are read from
FOLDER if they are there (docs/estimation.md says which).
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from benchmarks.reporting import parser, report, say
from consumers.demo import datasets
from models import serving
from models.estimating import fit_estimator
from models.examples import Examples
from models.features import Row
from models.profile import ReferenceProfile, Validation
from models.profiling import Binner, build_profile
from models.scorecard import Scorecard
from models.spec import Feature, ModelSpec, Training
from models.strata import Strata
from models.training import fit
from stream.core.estimates import estimate
from stream.events import Estimate

Floats = NDArray[np.float64]

CUT: Final = 0.8  # of the scores of the California stream, by which its model decides
SHIFTS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
HELD_OUT: Final = 0.5


class Stream(NamedTuple):
    """A model's reference and the chunks of its life after it.

    Attributes:
        outputs, labels: shape (n,); probabilities of the positive class, and 0 or 1.
        reference: the first rows, that the estimators learn from.
        chunks: number of the chunk of each row; those of the reference do not count.
    """

    name: str
    spec: ModelSpec
    rows: list[Row]
    outputs: Floats
    labels: Floats
    reference: int
    chunks: NDArray[np.int64]
    profile: ReferenceProfile


class Judged(NamedTuple):
    """One chunk: what is true and what was said of it."""

    truth: float
    ours: Estimate
    cbpe: float
    constant: float


def streams(folder: Path, *, quick: bool) -> Iterator[Stream]:
    yield from _made_up(4 if quick else 40)
    yield trained("bikes, four weeks", _of(datasets.bikes()), first=2_600, chunk=672)
    yield trained("flights, three days", _of(datasets.flights()), first=8_000, chunk=2_000)
    for name, read in (("california_housing_nannyml", california), ("elec2", elec2)):
        path = folder / f"{name}.csv.gz"
        if path.exists():
            yield from read(path)
        else:
            say(f"{path} is missing: that stream is left out")


def california(path: Path) -> Iterator[Stream]:
    """Monthly chunks of a stream that comes with its model's scores, as NannyML publishes it.

    The model decides at a score of 0.8: stretched, so that it is at 0.5 and the order stays.
    """
    table = _table(path)
    names = [*table[0]][1:9]
    rows: list[Row] = [tuple(float(row[name]) for name in names) for row in table]
    scores = np.array([float(row["y_pred_proba"]) for row in table])
    labels = np.array([float(row["clf_target"]) for row in table])
    reference = sum(row["partition"] == "reference" for row in table)
    months = np.array([int(row["timestamp"][:7].replace("-", "")) for row in table])
    spec = ModelSpec(
        name="houses",
        task="binary",
        classes=("cheap", "dear"),
        features=tuple(Feature(name=name) for name in names),
    )
    decided = np.where(scores < CUT, scores / CUT / 2, 0.5 + (scores - CUT) / (1 - CUT) / 2)
    for at, outputs in ((CUT, decided), (0.5, scores)):
        profile = _profile(spec, rows[:reference], outputs[:reference], labels[:reference])
        yield Stream(
            f"California, months, decided at {at}",
            spec,
            rows,
            outputs,
            labels,
            reference,
            months,
            profile,
        )


def elec2(path: Path) -> Iterator[Stream]:
    """The New South Wales electricity market in chunks of a month."""
    table = _table(path)
    names = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
    spec = ModelSpec(
        name="prices",
        task="binary",
        classes=("DOWN", "UP"),
        features=tuple(Feature(name=name) for name in names),
        training=Training(candidates=("hist_gradient_boosting",), holdout_share=HELD_OUT),
    )
    rows: list[Row] = [tuple(float(row[name]) for name in names) for row in table]
    labels = np.array([float(row["class"] == "UP") for row in table])
    yield trained("Elec2, months", (spec, rows, labels), first=12_000, chunk=1_488)


def _table(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as lines:
        return list(csv.DictReader(lines))


def _of(happenings: list[datasets.Happening]) -> tuple[ModelSpec, list[Row], Floats]:
    """Labelled happenings of the demo as a spec, rows and labels."""
    known = [one for one in happenings if one.label is not None]
    first = known[0].features
    features = tuple(
        Feature(name=name, type="categorical" if isinstance(value, str) else "numeric")
        for name, value in first.items()
    )
    classes = sorted({str(one.label) for one in known})
    spec = ModelSpec(
        name="demo",
        task="binary",
        classes=(classes[0], classes[1]),
        features=features,
        training=Training(holdout_share=HELD_OUT),
    )
    rows: list[Row] = [tuple(one.features[name] for name in first) for one in known]
    return spec, rows, np.array([float(str(one.label) == classes[1]) for one in known])


def trained(
    name: str, given: tuple[ModelSpec, list[Row], Floats], *, first: int, chunk: int
) -> Stream:
    """A model trained on the first rows as the trainer does it, and its life after them."""
    spec, rows, labels = given
    examples = Examples(rows[:first], labels[:first], np.arange(first), np.ones(first))
    made = fit(spec, examples, seed=0)
    model, at = serving.load(made.artefact, spec), made.fitted_rows
    outputs = model.predict(rows[at:])[:, 0]
    reference = first - at
    chunks = (np.arange(len(outputs)) - reference) // chunk
    return Stream(name, spec, rows[at:], outputs, labels[at:], reference, chunks, made.profile)


def _made_up(runs: int) -> Iterator[Stream]:
    """Calibrated models whose input moves by so many standard deviations; the concept stays."""
    spec = ModelSpec(
        name="shifted",
        task="binary",
        classes=("no", "yes"),
        features=(Feature(name="a"), Feature(name="b")),
    )
    n = 2_000
    for run in range(runs):
        draw = np.random.default_rng(run)
        a = np.concatenate([draw.normal(0, 1, 2 * n), *(draw.normal(s, 1, n) for s in SHIFTS)])
        outputs = 1 / (1 + np.exp(-2 * a))
        labels = (draw.random(len(a)) < outputs).astype(np.float64)
        rows: list[Row] = list(zip(a.tolist(), draw.normal(0, 1, len(a)).tolist(), strict=True))
        chunks = (np.arange(len(a)) - 2 * n) // n
        profile = _profile(spec, rows[: 2 * n], outputs[: 2 * n], labels[: 2 * n])
        yield Stream("made up, inputs shift", spec, rows, outputs, labels, 2 * n, chunks, profile)


def _profile(
    spec: ModelSpec, rows: Sequence[Row], outputs: Floats, labels: Floats
) -> ReferenceProfile:
    validation = Validation(n=len(rows), loss_bins=(1,) * 20, loss_scale=4.0, metrics={})
    profile = build_profile(spec, rows, outputs[:, None], validation)
    estimator = fit_estimator(spec, profile, rows, outputs[:, None], labels)
    return replace(profile, estimator=estimator)


def judged(stream: Stream) -> list[Judged]:
    """Every chunk after the reference."""
    at = slice(0, stream.reference)
    right = (stream.outputs >= 0.5) == (stream.labels == 1.0)
    isotonic = IsotonicRegression(out_of_bounds="clip")
    sure = isotonic.fit(stream.outputs[at], stream.labels[at]).predict(stream.outputs)
    confidence = np.where(stream.outputs >= 0.5, sure, 1 - sure)
    count = _counter(stream)
    told = []
    for chunk in np.unique(stream.chunks[stream.reference :]):
        rows = np.flatnonzero(stream.chunks == chunk)
        rows = rows[rows >= stream.reference]
        ours = count(rows)
        cbpe = float(confidence[rows].mean())
        told.append(Judged(float(right[rows].mean()), ours, cbpe, float(right[at].mean())))
    return told


def _counter(stream: Stream) -> Callable[[NDArray[np.int64]], Estimate]:
    """Counts some rows on the estimator's bins as monitor does, and says what to expect."""
    estimator = stream.profile.estimator
    if estimator is None:
        raise ValueError(f"{stream.name}: too few rows for an estimator")
    binner = Binner(stream.profile, stream.spec)
    outputs = stream.outputs[:, None]
    strata = Strata(stream.spec, stream.profile).of_outputs(outputs)
    bins, outside = Scorecard(estimator, binner).bins(binner.codes(stream.rows, outputs), strata)

    def told(rows: NDArray[np.int64]) -> Estimate:
        counts = np.bincount(bins[rows], minlength=len(estimator.cuts) + 1).tolist()
        found = estimate(estimator, [*counts, int(outside[rows].sum())])
        if found is None:
            raise ValueError(f"{stream.name}: an empty chunk")
        return found

    return told


def figures(chunks: Sequence[Judged]) -> dict[str, float]:
    """Mean absolute errors, and how often the interval and the support check were right."""
    trusted = [chunk for chunk in chunks if chunk.ours.reliable]
    ours = [abs(chunk.ours.metrics["accuracy"].value - chunk.truth) for chunk in chunks]
    covered = []
    for chunk in chunks:
        told = chunk.ours.metrics["accuracy"]
        low, high = told.low or 0.0, 1.0 if told.high is None else told.high
        covered.append(low <= chunk.truth <= high)
    return {
        "chunks": len(chunks),
        "driftline": float(np.mean(ours)),
        "cbpe": float(np.mean([abs(chunk.cbpe - chunk.truth) for chunk in chunks])),
        "constant": float(np.mean([abs(chunk.constant - chunk.truth) for chunk in chunks])),
        "covered": float(np.mean(covered)),
        "not_reliable": len(chunks) - len(trusted),
    }


def main() -> None:
    one = parser("Mean absolute error of accuracies that are told without labels.")
    one.add_argument("--data", type=Path, default=Path("data"), help="folder with more streams")
    given = one.parse_args()
    chunks: dict[str, list[Judged]] = {}
    for stream in streams(given.data, quick=given.quick):
        chunks.setdefault(stream.name, []).extend(judged(stream))
    found = {name: figures(some) for name, some in chunks.items()}
    report(
        "Mean absolute error of the accuracy, told without labels",
        ["stream", "chunks", "Driftline", "CBPE", "constant", "interval covers", "not reliable"],
        [
            [
                name,
                f"{one['chunks']:.0f}",
                *(f"{one[column]:.3f}" for column in ("driftline", "cbpe", "constant")),
                f"{one['covered']:.0%}",
                f"{one['not_reliable']:.0f}",
            ]
            for name, one in found.items()
        ],
        {
            f"{name}: {figure}": value
            for name, one in found.items()
            for figure, value in one.items()
        },
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
