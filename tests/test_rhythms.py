"""Seasons and dependence, chosen from a time-ordered reference; what they keep quiet, and pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from models.features import Row
from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile, numeric_bins
from models.rhythms import LEAST_STRENGTH, strength
from models.seasons import DAY_MS, HOUR_MS, Calendar
from models.slicing import segment_profiles
from models.spec import Budget, Feature, ModelSpec, Ticks, Tolerances
from stream.core.ticks import Group, Pending, Tick
from stream.core.watching import Kit, Watch, expected_after, observe

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Law = Callable[[np.random.Generator, Ints], Array]

MONDAY_MS = 1_767_571_200_000  # 5 January 2026, midnight UTC
STEP_MS = 43_200  # 2,000 events a day
VALIDATION = Validation(n=1, loss_bins=(1,) + (0,) * 19, loss_scale=4.0, metrics={})


def spec(**more: object) -> ModelSpec:
    fields: dict[str, object] = {
        "name": "m",
        "task": "binary",
        "classes": ("n", "y"),
        "features": (Feature(name="x"),),
        "ticks": Ticks(seconds=600.0, minimum_events=50),
        "budget": Budget(false_alarms_per_million_events=10.0),
        "tolerances": Tolerances(psi=0.0),
    }
    return ModelSpec(**(fields | more))  # type: ignore[arg-type]


def times(days: float, start_ms: int = MONDAY_MS) -> Ints:
    return start_ms + STEP_MS * np.arange(round(days * DAY_MS / STEP_MS))


def cycle(by: float, of_ms: int = DAY_MS, zone: str = "UTC") -> Law:
    """Normal, with a sine of the local clock."""

    def draw(rng: np.random.Generator, at_ms: Ints) -> Array:
        offsets = {}
        for hour in np.unique(at_ms // HOUR_MS).tolist():
            local = (
                np.datetime64(hour * HOUR_MS, "ms").astype(object).replace(tzinfo=ZoneInfo("UTC"))
            )
            offsets[hour] = (
                round(local.astimezone(ZoneInfo(zone)).utcoffset().total_seconds()) * 1000
            )
        shift_ms = np.array([offsets[hour] for hour in (at_ms // HOUR_MS).tolist()])
        x: Array = by * np.sin((at_ms + shift_ms) * 2 * np.pi / of_ms)
        return x + rng.standard_normal(len(at_ms))

    return draw


def ar(phi: float) -> Law:
    def draw(rng: np.random.Generator, at_ms: Ints) -> Array:
        noise = rng.standard_normal(len(at_ms)) * (1 - phi**2) ** 0.5
        x = np.empty(len(at_ms))
        last = float(rng.standard_normal())
        for i, shock in enumerate(noise.tolist()):
            last = x[i] = phi * last + shock
        return x

    return draw


def reference(
    law: Law, rng: np.random.Generator, days: float = 3.0, model: ModelSpec | None = None
) -> ReferenceProfile:
    at_ms = times(days)
    rows = [(float(value),) for value in law(rng, at_ms)]
    outputs = np.full((len(rows), 1), 0.5)
    return build_profile(model or spec(), rows, outputs, VALIDATION, at_ms)


def groups(
    profile: ReferenceProfile, law: Law, rng: np.random.Generator, at_ms: Ints, by: float = 0.0
) -> Iterator[Group]:
    """The stream as evaluate sees it: counts of each hour."""
    edges = np.array(profile.signals[0].edges)
    values = law(rng, at_ms) + by
    bins, width = numeric_bins(edges, values), len(profile.signals[0].counts)
    for hour in np.unique(at_ms // HOUR_MS).tolist():
        counts = np.bincount(bins[at_ms // HOUR_MS == hour], minlength=width).tolist()
        tick = Tick(predictions=sum(counts), signals={"x": counts})
        yield Group(hour * HOUR_MS, (hour + 1) * HOUR_MS, tick)


def alarms(kit: Kit, stream: Iterator[Group]) -> list[int]:
    """Starts of the groups in which the feature alarmed; it restarts at once."""
    watch, found = Watch(version=1), []
    for group in stream:
        observe(watch, kit, group)
        if "x" in watch.open("feature"):
            found.append(group.start_ms)
            watch = Watch(version=1, until_ms=watch.until_ms)
    return found


# --- what is chosen -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "days", "season"),
    [
        (cycle(0.5), 2.5, "hour of day"),
        (cycle(0.25), 4.0, "hour of day"),
        (cycle(0.5, 7 * DAY_MS), 28.0, "day of week"),
        (cycle(0.0), 4.0, ""),
        (cycle(0.1), 4.0, ""),
        (ar(0.9), 2.5, ""),
        (ar(0.98), 2.5, ""),
        (ar(0.9), 10.0, ""),
    ],
    ids=["daily", "slight", "weekly", "none", "no news", "ar 0.9", "ar 0.98", "ar 0.9, longer"],
)
def test_a_season_is_found_where_there_is_one_and_nowhere_else(
    law: Law, days: float, season: str
) -> None:
    rng = np.random.default_rng(1)
    found: list[str] = [reference(law, rng, days).signals[0].season for _ in range(8)]
    assert found.count(season) >= 7


def test_dependence_alone_hardly_ever_looks_like_a_season() -> None:
    """AR(1) with 0.98 wanders for hundreds of events, and now and then in step with the hours."""
    rng = np.random.default_rng(10)
    at_ms = times(2.5)
    cells, halves = at_ms // HOUR_MS % 24, (at_ms - at_ms[0]) // DAY_MS % 2
    found = [
        strength(ar(0.98)(rng, at_ms)[:, None], cells, halves, 24) > LEAST_STRENGTH
        for _ in range(60)
    ]
    assert np.mean(found) <= 0.2


def test_the_cells_of_a_season_add_up_to_the_reference() -> None:
    signal = reference(cycle(0.5), np.random.default_rng(2)).signals[0]
    assert len(signal.cells) == 24
    assert np.sum(signal.cells, axis=0).tolist() == list(signal.counts)
    assert signal.in_cell(6).counts == signal.cells[6]


def test_a_season_takes_the_cycle_out_of_the_deflation() -> None:
    rng = np.random.default_rng(3)
    with_times = reference(cycle(1.0), rng).signals[0]
    rows = [(float(value),) for value in cycle(1.0)(rng, times(3.0))]
    without = build_profile(spec(), rows, np.full((len(rows), 1), 0.5), VALIDATION).signals[0]
    assert with_times.deflation < 2.0
    assert without.deflation > 30.0
    assert without.season == ""


@pytest.mark.parametrize(
    "why",
    [
        pytest.param({"days": 1.5}, id="one cycle only"),
        pytest.param({"model": spec(ticks=Ticks(seconds=7200.0))}, id="ticks longer than cells"),
    ],
)
def test_a_cycle_that_cannot_be_a_season_is_left_to_the_deflation(why: dict[str, object]) -> None:
    signal = reference(cycle(1.0), np.random.default_rng(4), **why).signals[0]  # type: ignore[arg-type]
    assert signal.season == ""
    assert signal.deflation > 10.0


# --- what it keeps quiet, and what it lets pass -------------------------------------------------


@pytest.mark.parametrize("law", [cycle(0.5), ar(0.9)], ids=["daily cycle", "ar 0.9"])
def test_the_remedies_that_are_chosen_keep_a_stable_stream_within_its_budget(law: Law) -> None:
    """10 false alarms a million events over all kinds, of 6 streams of 20,000: 1.2 in all."""
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(6):
        profile = reference(law, rng, 2.5)
        stream = groups(profile, law, rng, times(10.0, MONDAY_MS + 4 * DAY_MS))
        found += len(alarms(Kit(spec(), profile), stream))
    assert found <= 1.2 + 3 * 1.2**0.5


def in_segments(share: float, rng: np.random.Generator) -> tuple[ModelSpec, ReferenceProfile]:
    """A reference of an input with a daily cycle, and of a share of its rows."""
    features = (Feature(name="x"), Feature(name="c", type="categorical"))
    model, at_ms = spec(features=features, segments=("c",)), times(2.5)
    values = cycle(0.5)(rng, at_ms).tolist()
    rows: list[Row] = [(x, "ab"[rng.random() < share]) for x in values]
    outputs, labels = np.full((len(rows), 1), 0.5), np.zeros(len(rows))
    whole = build_profile(model, rows, outputs, VALIDATION, at_ms)
    parts = segment_profiles(model, whole, rows, outputs, labels, at_ms)
    return model, structs.replace(whole, segments=parts)


@pytest.mark.parametrize(("share", "season"), [(0.5, "hour of day"), (0.2, "")])
def test_a_segment_has_the_season_of_the_whole_or_its_cycle_divided_out(
    share: float, season: str
) -> None:
    """A fifth has too few rows of each hour; either way a stable stream is quiet."""
    rng = np.random.default_rng(11)
    model, profile = in_segments(share, rng)
    part = next(part for part in profile.segments if part.name == "c=b")
    inside = next(signal for signal in part.signals if signal.name == "x")
    assert profile.signals[0].season == "hour of day"
    assert inside.season == season
    assert season or inside.deflation > 5
    kit, watch = Kit(model, profile), Watch(version=1)
    for group in groups(profile, cycle(0.5), rng, times(8.0)):
        observe(watch, kit, group._replace(counts=Tick(segments={"c=b": group.counts})))
    assert not watch.open("feature")


def test_without_the_season_a_daily_cycle_alarms_every_day() -> None:
    """That the remedy is needed: the same stream against the reference as a whole."""
    rng = np.random.default_rng(6)
    profile = reference(cycle(0.5), rng)
    pooled = structs.replace(profile.signals[0], season="", cells=(), deflation=1.0)
    blind = structs.replace(profile, signals=(pooled, *profile.signals[1:]))
    stream = groups(blind, cycle(0.5), rng, times(10.0))
    assert len(alarms(Kit(spec(), blind), stream)) >= 10


def test_a_shift_beside_a_season_is_found_within_a_day_and_resolves_when_it_is_over() -> None:
    rng = np.random.default_rng(7)
    profile = reference(cycle(0.5), rng, 6.0)
    kit, watch = Kit(spec(), profile), Watch(version=1)
    law = cycle(0.5)
    for group in groups(profile, law, rng, times(2.0)):
        observe(watch, kit, group)
    assert not watch.open("feature")
    for group in groups(profile, law, rng, times(1.0, MONDAY_MS + 2 * DAY_MS), by=0.4):
        observe(watch, kit, group)
    assert watch.open("feature")
    for group in groups(profile, law, rng, times(1.0, MONDAY_MS + 3 * DAY_MS), by=0.4):
        observe(watch, kit, group)
    assert watch.open("feature")
    for group in groups(profile, law, rng, times(3.0, MONDAY_MS + 4 * DAY_MS)):
        observe(watch, kit, group)
    assert not watch.open("feature")


@pytest.mark.parametrize(("zone", "quiet"), [("Europe/Berlin", True), ("UTC", False)])
def test_summer_time_moves_a_season_with_the_clocks_of_the_model(zone: str, quiet: bool) -> None:
    """Inputs follow Berlin's clocks; the reference is of January, the stream of July."""
    rng = np.random.default_rng(8)
    law = cycle(2.0, zone="Europe/Berlin")
    model = spec(time_zone=zone)
    profile = reference(law, rng, 6.0, model)
    stream = groups(profile, law, rng, times(4.0, MONDAY_MS + 26 * 7 * DAY_MS))
    assert (len(alarms(Kit(model, profile), stream)) <= 1) == quiet


def test_no_group_lies_in_two_cells_of_a_season() -> None:
    pending = Pending(open={n: Tick(predictions=30) for n in (0, 5, 6, 7, 11)})
    cells = Calendar("UTC", 600_000)
    found = pending.close(
        12,
        tick_ms=600_000,
        minimum_events=100,
        cell=lambda start_ms: cells.cell("hour of day", start_ms),
    )
    assert [(g.start_ms // 600_000, g.end_ms // 600_000, g.counts.predictions) for g in found] == [
        (0, 6, 60)
    ]
    assert pending.waiting is not None
    assert pending.waiting.predictions == 90


def test_a_change_seen_in_some_cells_is_carried_over_to_another() -> None:
    signal = reference(cycle(0.5), np.random.default_rng(9)).signals[0]
    usual = np.array(signal.cells[3]) + np.array(signal.cells[4])
    seen = {3: sum(signal.cells[3]), 4: sum(signal.cells[4])}
    same = expected_after(signal, usual.tolist(), seen, 15)
    here = np.array(signal.cells[15], dtype=float) + 0.5
    assert np.array(same) / sum(same) == pytest.approx(here / here.sum(), rel=1e-9)
