"""What the cost of monitoring is compared on: the same rows, right statistics, fixed versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import monitoring_cost, peers, throughput
from benchmarks.core_work import LABELS, START_MS, WAYS, live_of
from benchmarks.monitoring_cost import (
    CONTENDERS,
    Answer,
    Costs,
    Failed,
    figures,
    measure,
    run,
    table,
)
from benchmarks.watched import NAMES, REFERENCE_ROWS, Floats, Rows, draw, load, save
from models.profile import ReferenceProfile
from stream.events import AccuracyMeasured, DriftMeasured

WINDOW = 1_000
REFERENCE = draw(REFERENCE_ROWS, seed=1, drift=False)
WATCHED = draw(2 * WINDOW, seed=2, drift=True)


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    found = live_of(REFERENCE, WINDOW, lean=True).profile(1)
    assert found is not None
    return found


def said_by(name: str) -> list[object]:
    way = WAYS[name](WINDOW)
    dressed = [way.dress(n, window) for n, window in enumerate(WATCHED.windows(WINDOW, 2))]
    said = way.prepare(REFERENCE)(dressed)
    assert isinstance(said, list)
    return said


def windows_of(facts: list[DriftMeasured] | list[AccuracyMeasured]) -> list[int]:
    return [(fact.start_ms - START_MS) // (WINDOW * 1000) for fact in facts]


def test_every_pin_is_exact() -> None:
    for name in peers.NAMES:
        lines = (peers.PINS / f"{name}.txt").read_text().splitlines()

        assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines), name
        assert any(line.startswith(f"{name}==") for line in lines), name


def test_every_contender_has_an_environment_and_one_of_our_ways_to_be_compared_with() -> None:
    ours = {one.peer for one in CONTENDERS}
    assert {*ours, *throughput.PEERS.values()} == {"", *peers.NAMES}
    assert {one.like for one in CONTENDERS} <= WAYS.keys()


def test_a_peer_that_was_not_installed_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "ROOT", tmp_path)

    assert "not installed" in (peers.missing("river", install=False) or "")


def test_other_pins_than_were_installed_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    peers.home("river").mkdir(parents=True)
    ready = peers.home("river") / "ready"

    ready.write_text((peers.PINS / "river.txt").read_text())
    assert peers.missing("river", install=False) is None
    ready.write_text("river==0.1.0\n")
    assert peers.missing("river", install=False) is not None


def test_a_process_reads_the_rows_that_were_written(tmp_path: Path) -> None:
    digest = save(tmp_path / "rows.npz", 100)

    assert load(tmp_path / "rows.npz")[1].digest() == digest
    said = measure(CONTENDERS[0]._replace(small=0), tmp_path / "rows.npz", small=0, large=0)
    assert said.digest == digest


def test_a_contender_that_watched_other_rows_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a tool could look cheap for having had less to do."""
    monkeypatch.setattr(
        monitoring_cost, "measure", lambda *_, **__: Answer("other", "1", {WINDOW: 1.0})
    )

    with pytest.raises(SystemExit, match="other rows"):
        run(tmp_path / "rows.npz", "digest", 1, quick=True)


def test_a_contender_that_fails_is_skipped_aloud_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def one_fails(one: monitoring_cost.Contender, *_: object, **__: object) -> Answer:
        if one.way == "stage":
            raise Failed("no memory")
        return Answer("digest", "1", {WINDOW: 1.0})

    monkeypatch.setattr(monitoring_cost, "measure", one_fails)
    monkeypatch.setattr(peers, "ROOT", tmp_path)  # so that no peer is there
    costs, versions = run(tmp_path / "rows.npz", "digest", 2, quick=True)

    assert versions["stage"] == "skipped: no memory"
    assert versions["whylogs"].startswith("skipped: not installed")
    assert costs.micros("stage", WINDOW) is None
    assert costs.micros("drift", WINDOW) is not None


def test_counts_and_distances_are_those_of_drift() -> None:
    """What less is made of the same rows is the same."""
    facts = [fact for fact in said_by("drift") if isinstance(fact, DriftMeasured)]
    windows = zip(windows_of(facts), facts, strict=True)
    told = {(window, fact.signal): fact for window, fact in windows}

    for window, (counts, far) in enumerate(
        zip(said_by("counts"), said_by("distances"), strict=True)
    ):
        assert isinstance(counts, dict)
        assert isinstance(far, np.ndarray)
        assert counts.keys() == {*NAMES, "prediction"}
        for name, found in counts.items():
            assert found.tolist() == told[window, name].counts
        assert far.tolist() == [told[window, name].js for name in NAMES]


def test_drift_is_that_of_the_rows(profile: ReferenceProfile) -> None:
    """PSI and Jensen-Shannon of every window and signal, from the rows by numpy alone."""
    facts = [fact for fact in said_by("drift") if isinstance(fact, DriftMeasured)]
    names = {*NAMES, "prediction"}

    assert {fact.signal for fact in facts} == names
    assert len(facts) == 2 * len(names)
    for fact, number in zip(facts, windows_of(facts), strict=True):
        p, q = shares(profile, fact.signal, WATCHED.windows(WINDOW, 2)[number])
        middle = (p + q) / 2
        divergence = sum((x * np.log2(x / middle)).sum() / 2 for x in (p, q))
        assert fact.n == WINDOW
        assert fact.psi == pytest.approx(((q - p) * np.log(q / p)).sum())
        assert fact.js == pytest.approx(np.sqrt(divergence))


def shares(profile: ReferenceProfile, name: str, window: Rows) -> tuple[Floats, Floats]:
    """Of the reference and of the window, with half a row in every bin that either occupies."""
    signal = profile.signal(name)
    assert signal is not None
    column = window.scores if name == "prediction" else window.features[:, NAMES.index(name)]
    edges = [-np.inf, *signal.edges[:-1], np.nextafter(signal.edges[-1], np.inf), np.inf]
    live = np.histogram(column, edges)[0]
    known = np.array(signal.counts[:-1])  # without nulls, of which there are none
    used = (live > 0) | (known > 0)
    p, q = ((counts[used] + 0.5) for counts in (known, live))
    return p / p.sum(), q / q.sum()


@pytest.mark.parametrize("name", ["figures", "shipped"])
def test_performance_is_that_of_the_rows(name: str) -> None:
    facts = [fact for fact in said_by(name) if isinstance(fact, AccuracyMeasured)]

    assert windows_of(facts) == [0, 1]
    for fact, window in zip(facts, WATCHED.windows(WINDOW, 2), strict=True):
        correct = (window.scores >= 0.5) == (window.labels == 1)
        chance = np.where(window.labels == 1, window.scores, 1 - window.scores)
        assert fact.labelled == WINDOW
        assert fact.metrics["accuracy"].value == pytest.approx(correct.mean())
        assert fact.metrics["log_loss"].value == pytest.approx(-np.log(chance).mean(), abs=1e-6)


def test_the_stages_say_of_the_records_what_the_core_says_of_the_rows() -> None:
    core = [fact for fact in said_by("shipped") if isinstance(fact, DriftMeasured)]
    written = [json.loads(one.value)["data"] for one in said_by("stage") if one.entity == "drift"]  # type: ignore[attr-defined]

    assert {(one["signal"], one["start_ms"]): one["psi"] for one in written} == {
        (fact.signal, fact.start_ms): fact.psi for fact in core
    }


def test_the_page_shows_the_figures_that_were_kept() -> None:
    kept = json.loads((peers.ROOT / "benchmarks/results/monitoring_cost.json").read_text())

    assert table(kept).markdown() in (peers.ROOT / "docs/performance.md").read_text()


def test_the_whole_stage_is_compared_with_what_peers_cost_in_the_same_round() -> None:
    costs = Costs()
    for way, micros in (("stage", 6.0), ("nannyml_js", 3.0), ("stage", 6.0), ("nannyml_js", 2.0)):
        costs.add(way, WINDOW, micros)

    found = figures(costs, {one.way: "" for one in CONTENDERS}, 2)

    assert found["stage to nannyml_js, windows of 1000"] == {"median": 2.5, "low": 2.0, "high": 3.0}


def test_labels_are_those_of_the_spec() -> None:
    assert live_of(REFERENCE, WINDOW, lean=True).lifecycle.spec.classes == LABELS
