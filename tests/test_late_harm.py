"""Verdicts on late and absent labels, from summaries to alerts: the first labels of a version are
its fastest, and before any has come its predictions may already say that it will be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from models.profile import SegmentProfile
from models.spec import Labels, ModelSpec, Policy
from stream.core.lateness import judged_on, judging_bin, lateness_bin
from stream.core.processor import Fleet
from stream.events import LOSS_BINS, Alert, Command, ProgressReported, SummaryComputed
from tests.summaries import (
    BAD,
    DAY_MS,
    GOOD,
    SPEC,
    Live,
    Monitor,
    Trainer,
    batch,
    processor,
    profile,
    verdicts,
)

DAY_SECONDS = 86_400.0
LATE = replace(
    SPEC,
    labels=Labels(
        horizon_seconds=4 * DAY_SECONDS,
        complete_seconds=3 * DAY_SECONDS,
        judged_after_seconds=DAY_SECONDS,
    ),
)
SOON = (0.2, 0.9)  # share labelled after a day where negative and positive, the others after three
CALM, HARMED = (0.01, 0.15), (0.10, 0.40)  # share of bad predictions of each


def day(
    tick: int,
    bad: tuple[float, float],
    draw: np.random.Generator,
    soon: tuple[float, float] = SOON,
) -> list[SummaryComputed]:
    """A day's 3,000 predictions and all that their labels will say, in the ticks of which it is."""
    true = (draw.random(3_000) < 0.2).astype(int)
    wrong = draw.random(3_000) < np.array(bad)[true]
    delay = np.where(draw.random(3_000) < np.array(soon)[true], 1, 3)
    found = [delta(tick, tick, predictions=3_000, predicted={"0": 2_400, "1": 600})]
    for late in (1, 3):
        came = delay == late
        bets = row(int((came & wrong).sum()), int((came & ~wrong).sum()))
        found.append(delta(tick + late, tick + late, bets=bets))
        arrivals, judged = {}, {}
        for t in (0, 1):
            for w in (0, 1):
                these = int((came & (true == t) & (wrong == w)).sum())
                stratum = f"{t ^ w}/{t}"
                arrivals[stratum] = {str(int(lateness_bin(np.array([late * DAY_MS]))[0])): these}
                judged[stratum] = row(these * w, these * (1 - w))
        found.append(delta(tick + late, tick, arrivals=arrivals, latest=tick + late))
        if late == 1:
            due = judged_on(tick * DAY_MS, judging_bin(DAY_SECONDS), DAY_MS)
            found.append(delta(tick + late, due, judged=judged))
    return found


def row(bad: int, good: int) -> list[int]:
    counts = [0] * LOSS_BINS
    counts[BAD], counts[GOOD] = bad, good
    return counts


def delta(seen: int, tick: int, **fields: Any) -> SummaryComputed:
    """`seen`: the tick in which monitor reports it; kept as the partition until it is sent."""
    return SummaryComputed(model="bikes", version=1, tick=tick, partition=seen, **fields)


def told(spec: ModelSpec, days: list[tuple[float, float]]) -> list[tuple[int, str]]:
    """What is said of harm, and on which day."""
    draw = np.random.default_rng(1)
    reported = [one for tick, bad in enumerate(days, 1) for one in day(tick, bad, draw)]
    alerts = harm_alerts(reported, len(days), Trainer(spec).fleet)
    return [(tick, alert.state) for tick, alert in alerts]


def harm_alerts(
    reported: list[SummaryComputed], days: int, fleet: Fleet
) -> list[tuple[int, Alert]]:
    core, found = processor(), []
    for tick in range(1, days + 1):
        events: list[msgspec.Struct] = [
            replace(one, partition=0) for one in reported if one.partition == tick
        ]
        outputs = core.apply(batch([*events, progress(tick + 1)]), fleet)
        found += [(tick, fact) for fact in verdicts(outputs)]
    return [(t, one) for t, one in found if isinstance(one, Alert) and one.problem == "harm"]


def progress(tick: int) -> ProgressReported:
    at = tick * DAY_MS
    return ProgressReported(
        partition=0, partitions=1, sequence=tick, watermark_ms=at, clock_ms=at, caught_up=True
    )


def test_a_version_s_first_labels_are_no_harm_where_it_is_judged_at_an_age() -> None:
    """As they come, the first labels are the fast ones, which are wrong more often."""
    calm = [CALM] * 30
    as_they_come = replace(LATE, labels=replace(LATE.labels, judged_after_seconds=None))
    assert told(as_they_come, calm)[0] == (2, "open")
    assert told(LATE, calm) == []


def test_harm_judged_at_an_age_is_found_and_resolves() -> None:
    days = [CALM] * 20 + [HARMED] * 15 + [CALM] * 25
    (opened, first), *_, (resolved, last) = told(LATE, days)
    assert (first, last) == ("open", "resolved")
    assert 21 < opened <= 30
    assert 37 < resolved <= 50


def in_parts(
    days: list[tuple[tuple[float, float], tuple[float, float]]],
) -> list[tuple[int, Alert]]:
    """What is said of harm of a model in two halves, whose labels are late in opposite ways."""
    draw, reported = np.random.default_rng(1), []
    for tick, bad in enumerate(days, 1):
        for value, here, soon in zip("ab", bad, (SOON[::-1], SOON), strict=True):
            for one in day(tick, here, draw, soon):
                reported += [one, replace(one, segment=f"c={value}")]
    whole, spec = profile(), replace(LATE, segments=("c",))
    parts = tuple(
        SegmentProfile(name=f"c={value}", signals=(), validation=whole.validation) for value in "ab"
    )
    live = Live(Trainer(spec).lifecycle, replace(whole, segments=parts))
    return harm_alerts(reported, len(days), {spec.name: live})


def test_a_segment_judged_at_an_age_is_weighed_by_delays_of_its_own() -> None:
    """By those of all, half of which are the other way round, it would look harmed: its positives
    are wrong more often than most, and are labelled soon."""
    assert in_parts([(CALM, (0.0, 0.35))] * 30) == []


def test_harm_in_one_segment_is_found_where_labels_are_judged_at_an_age() -> None:
    """The other half gains, so that the whole stays within its bound."""
    (_, alert), *_ = in_parts([(CALM, CALM)] * 15 + [((0.0, 0.0), HARMED)] * 15)
    assert "does worse in c=b" in alert.sentence
    assert alert.evidence["judged_after_seconds"] == DAY_SECONDS


def story(spec: ModelSpec, unsure: list[float], **more: Any) -> list[Alert | Command]:
    """Verdicts on days without a label, on which some predictions are no better than chance."""
    monitor, core, found = Monitor(partitions=1), processor(), []
    for tick, share in enumerate(unsure, 1):
        monitor.day(tick, 1, n=200, unsure=share, labelled=False, **more)
        monitor.progress(tick + 1)
        found += verdicts(core.apply(batch(monitor.drain()), Trainer(spec).fleet))
    return found


def of(problem: str, found: list[Alert | Command]) -> Iterator[Alert]:
    return (one for one in found if isinstance(one, Alert) and one.problem == problem)


def test_harm_is_expected_before_any_label_has_come_and_commands_nothing() -> None:
    found = story(SPEC, [0.05] * 10 + [0.95] * 20 + [0.05] * 30)
    opened, resolved = of("estimate", found)
    assert (opened.verdict, opened.severity) == ("performance harmed", "info")
    assert "without labels" in opened.sentence
    evidence: dict[str, Any] = opened.evidence
    assert evidence["basis"] == "estimated"
    assert evidence["loss"] > evidence["bound"]
    assert (resolved.state, resolved.opened_ms) == ("resolved", opened.opened_ms)
    assert not any(isinstance(one, Command) for one in found)
    assert not [*of("harm", found)]


def test_expected_harm_pages_if_the_policy_says_so() -> None:
    paging = replace(SPEC, policy=Policy(estimated_harm="page"))
    (opened,) = of("estimate", story(paging, [0.05] * 10 + [0.95] * 10))
    assert opened.severity == "critical"


def test_nothing_is_expected_of_inputs_that_the_reference_did_not_have() -> None:
    assert not [*of("estimate", story(SPEC, [0.05] * 10 + [0.95] * 20, outside=0.5))]


def test_a_calm_model_is_expected_to_stay_so() -> None:
    assert not [*of("estimate", story(SPEC, [0.05] * 60))]
