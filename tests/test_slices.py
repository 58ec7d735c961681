"""Slices that nobody declared: searched where harm is found, named only beyond chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.facets import FEW, Coder, Facet, Grid, Slices
from models.features import Row
from models.losses import measures
from models.profile import ReferenceProfile
from models.profiling import build_profile
from models.slicing import slices
from models.spec import Feature, ModelSpec, check
from stream.core import describing
from stream.core.deltas import Deltas
from stream.core.folding import fold_labels
from stream.core.joining import Joined
from stream.core.labelled import Labelled
from stream.core.packing import Kind
from stream.core.slices import CHANCE, search
from stream.core.sources import Source, facets_of
from stream.core.ticks import Group, Tick
from stream.core.watching import Kit, Watch, observe
from stream.events import LOSS_BINS
from tests.monitoring import SPEC as CHURN
from tests.monitoring import reference as churn_reference
from tests.summaries import BAD, DAY_MS, GOOD, SPEC, profile

FACETS = tuple(Facet(feature=f"x{i}", cuts=(-0.67, 0.0, 0.67)) for i in range(6))
GRID = Grid(FACETS)
Law = Callable[[NDArray[np.int64]], NDArray[np.float64]]  # chance of a bad prediction, by groups


def cells(law: Law, n: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Labels, losses and squares of n events by cell, shape (3, size)."""
    groups = draw.integers(0, 4, (n, len(FACETS)))
    lost = np.where(draw.random(n) < law(groups), 0.85, 0.05)
    at = GRID.cells(groups)
    columns = (np.ones(n), 1e6 * lost, 1e6 * lost**2)
    lines = at.shape[1]
    totals = [np.bincount(at.ravel(), np.repeat(c, lines), GRID.size) for c in columns]
    return np.rint(totals).astype(np.int64)


def found(before: Law, now: Law, rows: int, labels: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    n, sums, squares = (tuple(row.tolist()) for row in cells(before, rows, draw))
    live = cells(now, labels, draw)
    seen = {str(cell): live[:, cell].tolist() for cell in np.flatnonzero(live[0])}
    return search(Slices(facets=FACETS, n=n, sums=sums, squares=squares), seen)


def even(chance: float) -> Law:
    return lambda groups: np.full(len(groups), chance)


def in_slice(chance: float, **groups: int) -> Law:
    """More in a slice than elsewhere."""
    return lambda g: np.where(
        np.all([g[:, int(name[1:])] == group for name, group in groups.items()], axis=0),
        chance,
        0.1,
    )


@pytest.mark.parametrize(("rows", "labels"), [(500, 150), (2_500, 600), (2_500, 2_500)])
def test_harm_that_is_spread_evenly_names_a_slice_by_chance_only(rows: int, labels: int) -> None:
    """Of 264 slices looked at with enough rows, in at most 5 % of alerts plus 3 standard errors."""
    told = [found(even(0.1), even(0.3), rows, labels, seed) for seed in range(150)]
    named = sum(bool(one["found"]) for one in told)
    assert max(one["looked_at"] for one in told) > 20
    assert named <= 150 * CHANCE + 3 * (150 * CHANCE * (1 - CHANCE)) ** 0.5


def test_always_bad_is_no_news() -> None:
    """What counts is how much the loss rose, not how high it is."""
    bad = in_slice(0.5, x1=2)
    told = [found(bad, bad, 2_500, 600, seed) for seed in range(60)]
    assert sum(bool(one["found"]) for one in told) <= 60 * CHANCE + 3


@pytest.mark.parametrize(
    ("now", "name"),
    [
        (in_slice(0.4, x1=2), "0 <= x1 < 0.67"),
        (in_slice(0.7, x1=2, x4=0), "0 <= x1 < 0.67 and x4 < -0.67"),
    ],
)
def test_the_worst_slice_is_named_no_wider_and_no_narrower_than_it_is(now: Law, name: str) -> None:
    told = [found(even(0.1), now, 2_500, 600, seed)["found"] for seed in range(40)]
    assert sum(bool(one) and one[0]["slice"] == name for one in told) >= 36
    worst = told[0][0]
    assert worst["loss"] > worst["rest"] > worst["validated"] - 0.1
    assert worst["chance"] <= CHANCE


def rows_of(n: int, draw: np.random.Generator) -> list[Row]:
    ages = [None if u < 0.02 else float(x) for u, x in draw.random((n, 2))]
    plans = draw.choice(["a", "b", "c", "d", "e"], n, p=[0.4, 0.3, 0.2, 0.07, 0.03])
    return [(age, str(plan)) for age, plan in zip(ages, plans, strict=True)]


def made(n: int = 800, **more: Any) -> tuple[ModelSpec, ReferenceProfile, list[Row], Any, Any]:
    draw = np.random.default_rng(3)
    spec, rows = msgspec.structs.replace(CHURN, **more), rows_of(n, draw)
    outputs, labels = draw.random((n, 1)), (draw.random(n) < 0.5).astype(float)
    whole = build_profile(spec, rows, outputs, churn_reference().validation)
    return spec, whole, rows, outputs, labels


def test_a_reference_has_the_losses_of_every_cell() -> None:
    spec, whole, rows, outputs, labels = made()
    known = slices(spec, whole, rows, outputs, labels)
    assert known is not None
    age, plan = known.facets
    assert plan.values == ("a", "b", "c", "d")
    assert age.cuts == pytest.approx([0.25, 0.5, 0.75], abs=0.1)
    grid, lost = Grid(known.facets), measures(spec, outputs, labels, 4.0)["loss"]
    here = [(row[0] is None, row[1] == "b") for row in rows]
    names = {grid.name(cell): cell for cell in range(grid.size)}
    for name, mask in (
        ("age=(null)", [null for null, _ in here]),
        ("plan=b", [b for _, b in here]),
        ("age=(null) and plan=b", [null and b for null, b in here]),
    ):
        cell = names[name]
        assert known.n[cell] == sum(mask)
        assert known.sums[cell] == pytest.approx(1e6 * lost[np.array(mask)].sum(), abs=1_000)
    assert sum(known.n) == 3 * len(rows)


def test_a_spec_says_what_is_searched() -> None:
    spec, whole, rows, outputs, labels = made(searched=("plan",))
    known = slices(spec, whole, rows, outputs, labels)
    assert known is not None
    assert [facet.feature for facet in known.facets] == ["plan"]
    assert slices(msgspec.structs.replace(spec, searched=()), whole, rows, outputs, labels) is None
    assert slices(spec, whole, rows[:100], outputs[:100], labels[:100]) is None
    many = tuple(Feature(name=f"f{i}") for i in range(20))
    wide = ModelSpec(name="m", task="regression", features=many)
    assert len(wide.facets) == 6
    for wrong in (("f1", "f1"), ("other",), tuple(f"f{i}" for i in range(13))):
        with pytest.raises(ValueError, match="searched"):
            check(msgspec.structs.replace(wide, searched=wrong))


@pytest.mark.parametrize("models", [1, 40])
def test_labels_are_summed_by_the_cells_of_their_predictions(models: int) -> None:
    """One model with many labels, and many with few each, whose grids differ."""
    sources, labelled = [], []
    expected: dict[tuple[str, str], tuple[int, int]] = {}
    draw = np.random.default_rng(5)
    for number in range(models):
        spec, whole, rows, outputs, labels = made(name=f"m{number}", searched=("plan", "age"))
        if number % 2:
            rows = [(row[0], "abx"[int(draw.integers(3))]) for row in rows]
            whole = build_profile(spec, rows, outputs, whole.validation)
        known = slices(spec, whole, rows, outputs, labels)
        sources.append(Source(kind(spec, 2), spec, msgspec.structs.replace(whole, slices=known)))
    for i, row in enumerate(rows_of(200, draw)):
        source, bad = sources[i % models], i % 3 == 0
        joined = Joined(
            str(i), source.kind, i, 100, 900, 1_200, source.codes(row), (0.9,), float(not bad), 1.0
        )
        labelled.append(joined)
        assert source.grid is not None
        lost = round(1e6 * min(1.0, -np.log(0.1 if bad else 0.9) / 4.0))
        groups = np.array([[*Coder(source.grid.facets, source.spec.feature_names).code(row)]])
        for cell in source.grid.cells(groups)[0].tolist():
            key = (source.kind.model, str(cell))
            n, total = expected.get(key, (0, 0))
            expected[key] = (n + 1, total + lost)
    deltas, by_kind = Deltas(), {source.kind: source for source in sources}
    fold_labels(Labelled.gathered(labelled, by_kind.__getitem__), deltas)
    told = {
        (delta.model, cell): (counts[0], counts[1])
        for delta in deltas.take(0)
        for cell, counts in delta.slices.items()
        if not delta.segment
    }
    assert told == expected


def kind(spec: ModelSpec, facets: int) -> Kind:
    return Kind(spec.name, 1, (), 1, spec.segments, 10_000, 4_000, 3_000, 4.0, facets)


@pytest.mark.parametrize("times", [1, FEW])
@pytest.mark.parametrize(
    "rows", [[(0.5, "a"), (3.0, "zzz")], [(0.5, "a"), (None, None), (1.0, "b")], []]
)
def test_events_coded_at_once_have_the_groups_of_each_alone(rows: list[Row], times: int) -> None:
    """Few of them and many, also where a number is missing among them."""
    rows = rows * times
    facets = Facet(feature="x", cuts=(0.0, 1.0)), Facet(feature="plan", values=("a", "b"))
    alone = [bytes(f.group(v) for f, v in zip(facets, row, strict=True)) for row in rows]
    assert Coder(facets, ["x", "plan"]).codes(rows) == alone


def test_predictions_made_before_there_were_slices_are_joined_as_ever() -> None:
    spec, whole, rows, outputs, labels = made()
    known = msgspec.structs.replace(whole, slices=slices(spec, whole, rows, outputs, labels))
    old = msgspec.json.decode(msgspec.json.encode(kind(spec, 0))[:-3] + b"]", type=Kind)
    assert old == kind(spec, 0)
    source = Source(old, spec, known)
    assert source.grid is None
    assert source.codes((1.0, "a")) == b"\x00"
    labelled = msgspec.structs.replace(spec.labels, judged_after_seconds=3.0)
    aged = msgspec.structs.replace(spec, labels=labelled)
    assert [len(facets_of(s, p)) for s, p in ((spec, known), (aged, known), (spec, None))] == [
        2,
        0,
        0,
    ]


def test_an_alert_on_harm_names_the_slice_and_says_how_many_were_looked_at() -> None:
    facets = (Facet(feature="c", values=("a", "b")),)
    reference = msgspec.structs.replace(
        profile(),
        slices=Slices(
            facets=facets,
            n=(1_000, 1_000, 0),
            sums=(90_000_000, 90_000_000, 0),
            squares=(40_000_000, 40_000_000, 0),
        ),
    )
    kit, watch = Kit(SPEC, reference), Watch(version=1)
    bets = [0] * LOSS_BINS
    bets[GOOD], bets[BAD] = 60, 40
    low, high = GOOD / 19, BAD / 19
    lost = {
        "0": (50, round(1e6 * 50 * low), round(1e6 * 50 * low**2)),
        "1": (
            50,
            round(1e6 * (10 * low + 40 * high)),
            round(1e6 * (10 * low**2 + 40 * high**2)),
        ),
    }
    for day in range(3):
        tick = Tick(predictions=100, bets=bets, slices=lost)
        observe(watch, kit, Group(day * DAY_MS, (day + 1) * DAY_MS, tick))
    assert msgspec.json.decode(msgspec.json.encode(watch), type=Watch) == watch
    sentence, evidence = describing.harm(watch, kit)
    assert "; where c=b 0." in sentence
    search = evidence["search"]
    assert (search["looked_at"], search["by_chance"]) == (2, CHANCE)
    assert search["found"][0]["slice"] == "c=b"
    assert search["found"][0]["n"] == evidence["n"] // 2
    assert msgspec.json.encode(evidence)
