"""Guard rails: what a challenger must not do, however well it does on the whole."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from msgspec.structs import replace

from benchmarks.trials import WORLDS, World, simulated
from models.profile import ReferenceProfile, SignalProfile, Validation
from models.spec import Trial
from stream.core.guards import Guards, guarded, judge, latency_bin
from stream.core.ticks import Group, Tick
from stream.core.trials import TrialState, judge_challenger, observe
from stream.events import MICRO, LifecycleChanged, Pairs
from tests.summaries import SPEC

TRIAL = Trial(minimum_pairs=100, maximum_pairs=20_000, cycle_seconds=0)
SEGMENTED = replace(SPEC, segments=("c",), trial=TRIAL)
SHARES = {"c=a": 0.8, "c=b": 0.2}
SLOW, QUICK = {str(latency_bin(0.4)): 500}, {str(latency_bin(0.004)): 500}


def pairs(n: int, mean: float, *, off: float = 0.0, shadow_off: float = 0.0) -> Pairs:
    """Differences of +-1 on a tenth of n events and their mean; certainty off by so much."""
    return Pairs(
        n=n,
        d_sum=round(n * mean * MICRO),
        d_squares=n // 10 * MICRO,
        off=round(n * off * MICRO),
        off_squares=n // 5 * MICRO,
        shadow_off=round(n * shadow_off * MICRO),
        shadow_off_squares=n // 5 * MICRO,
    )


def group(
    whole: Pairs,
    segments: Mapping[str, Pairs] | None = None,
    latencies: dict[str, dict[str, int]] | None = None,
) -> Group:
    parts = {name: Tick(pairs={"2": part}) for name, part in (segments or {}).items()}
    return Group(0, 1000, Tick(pairs={"2": whole}, segments=parts, latencies=latencies or {}))


def ended(*groups: Group, trial: Trial = TRIAL, harmed: bool = False) -> tuple[str, str]:
    """What a trial says after these groups, and why."""
    lifecycle = LifecycleChanged(
        model="bikes",
        generation=1,
        spec=replace(SEGMENTED, trial=trial),
        spec_revision=1,
        champion=1,
        challengers=[2],
        changed_ms=0,
    )
    states: dict[int, TrialState] = {}
    for one in groups:
        observe(states, lifecycle, one)
    judgement = judge_challenger(2, states[2], trial, harmed=harmed, segments=SHARES)
    return (judgement.kind, judgement.reason) if judgement else ("wait", "")


FINE = {"c=a": pairs(4000, 0.05), "c=b": pairs(1000, 0.05)}


def test_better_on_the_whole_and_in_each_segment_is_promoted_with_what_the_guards_saw() -> None:
    assert ended(group(pairs(5000, 0.05), FINE)) == ("promote", "it does better")
    state = TrialState(started_ms=0)
    state.guards.observe(1, 2, group(pairs(5000, 0.05), FINE))
    finding = judge(state.guards, TRIAL, SHARES)
    assert finding == (None, ())


@pytest.mark.parametrize("harmed", [False, True])
def test_better_on_the_whole_but_worse_in_a_segment_is_rejected(*, harmed: bool) -> None:
    segments = {"c=a": pairs(4000, 0.08), "c=b": pairs(1000, -0.07)}
    kind, reason = ended(group(pairs(5000, 0.05), segments), harmed=harmed)
    assert (kind, reason) == ("reject", "it does worse where c=b")


@pytest.mark.parametrize("harmed", [False, True])
def test_a_segment_that_has_not_shown_it_yet_is_waited_for_up_to_the_maximum(
    *, harmed: bool
) -> None:
    unsure = {"c=a": pairs(4000, 0.06), "c=b": pairs(1000, 0.0)}
    assert ended(group(pairs(5000, 0.05), unsure), harmed=harmed)[0] == "wait"
    impatient = replace(TRIAL, maximum_pairs=5000)
    kind, reason = ended(group(pairs(5000, 0.05), unsure), trial=impatient, harmed=harmed)
    assert kind == "reject"
    assert reason == "not shown to be no worse where c=b after 5000 labelled events"


def test_a_segment_that_does_not_come_any_more_holds_nothing_up() -> None:
    gone = {"c=a": pairs(4900, 0.05), "c=b": pairs(100, 0.0)}
    assert ended(group(pairs(5000, 0.05), gone))[0] == "promote"


def test_what_came_before_guards_looked_does_not_count_for_a_segment() -> None:
    """State of an earlier release has no guards: the trial goes on, and waits for them."""
    state = TrialState(started_ms=0, totals=Pairs(n=5000), tests={"better": [5000, 250.0, 500.0]})
    assert judge_challenger(2, state, TRIAL, harmed=False) is None


@pytest.mark.parametrize(
    ("champion_off", "shadow_off", "kind"),
    [(0.0, 0.2, "reject"), (0.2, 0.2, "promote"), (0.0, 0.06, "promote"), (0.0, -0.2, "reject")],
)
def test_certainty_that_is_further_off_than_the_champions_is_rejected(
    champion_off: float, shadow_off: float, kind: str
) -> None:
    whole = pairs(5000, 0.05, off=champion_off, shadow_off=shadow_off)
    found, reason = ended(group(whole, FINE))
    assert found == kind
    assert (kind == "promote") or reason.startswith("its certainty is off by 0.2")
    lax = replace(TRIAL, calibration_margin=None)
    assert ended(group(whole, FINE), trial=lax)[0] == "promote"


@pytest.mark.parametrize(
    ("latencies", "kind"),
    [
        ({"1": QUICK, "2": SLOW}, "reject"),
        ({"1": SLOW, "2": SLOW}, "promote"),  # batches were large
        ({"1": QUICK, "2": QUICK}, "promote"),
        ({"2": SLOW}, "promote"),  # nothing to hold it against
        ({}, "promote"),  # served elsewhere
    ],
)
def test_a_challenger_that_is_slow_on_the_champions_batches_is_rejected(
    latencies: dict[str, dict[str, int]], kind: str
) -> None:
    found, reason = ended(group(pairs(5000, 0.05), FINE, latencies))
    assert found == kind
    assert (kind == "promote") or "ms at p99" in reason
    anyhow = replace(TRIAL, latency_p99_ms=None)
    assert ended(group(pairs(5000, 0.05), FINE, latencies), trial=anyhow)[0] == "promote"


def test_values_of_declared_segments_guard_if_they_are_frequent_enough() -> None:
    profile = ReferenceProfile(
        model="bikes",
        rows=100,
        signals=(
            SignalProfile(
                name="c", kind="categorical", categories=("a", "b", "d"), counts=(60, 31, 9, 0, 0)
            ),
        ),
        validation=Validation(n=0, loss_bins=(), loss_scale=4.0, metrics={}),
    )
    assert guarded(SEGMENTED, profile) == {"c=a": 0.6, "c=b": 0.31}
    assert guarded(SPEC, profile) == {}
    off = replace(SEGMENTED, trial=replace(TRIAL, segment_margin=None))
    assert guarded(off, profile) == {}


def test_guards_add_up_however_groups_are_cut_and_survive_plain_data() -> None:
    guards = Guards()
    for _ in range(3):
        guards.observe(1, 2, group(pairs(500, 0.05), FINE, {"1": QUICK, "2": SLOW}))
    assert (guards.n, guards.segments["c=b"][0]) == (1500, 3000.0)
    assert sum(guards.shadow_latencies.values()) == 1500
    assert msgspec.json.decode(msgspec.json.encode(guards), type=Guards) == guards


@pytest.mark.parametrize("world", WORLDS, ids=[world.name for world in WORLDS])
def test_of_ten_simulated_trials_none_ends_wrongly(world: World) -> None:
    """What `python -m benchmarks.trials` measures on 500 of each, in docs/trials.md."""
    result = simulated(world, runs=10)
    assert result.promoted == (1.0 if world.expected == "promoted" else 0.0)
