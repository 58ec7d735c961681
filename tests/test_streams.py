"""The benchmark on real streams: what it counts, and what it says where the data is not there."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from benchmarks import streams
from benchmarks.loops import Fits, fitted
from benchmarks.real_streams import Missing, Stream, load, remembering, wanting_newer
from benchmarks.stream_plots import draw
from benchmarks.streams import Outcome, Told, every, play, ticks_of
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def bikes() -> Stream:
    return load("bikes", None, 2400)


def test_without_the_data_it_says_so_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="is not in"):
        load("elec2", tmp_path, None)
    command = [sys.executable, "-m", "benchmarks.streams", "--quick", "--only", "elec2,insects"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert "elec2 is left out" in done.stderr
    assert "insects is left out" in done.stderr


def test_every_row_after_the_first_window_is_predicted_once_before_it_is_told(
    bikes: Stream,
) -> None:
    ticks = ticks_of(bikes)
    assert [row for tick in ticks for row in tick] == list(range(1344, 2400))


def test_a_schedule_fits_as_often_as_it_says_on_rows_that_are_known(bikes: Stream) -> None:
    fits = Fits(bikes, 1)
    first = fits.until(bikes.window)
    assert first is not None
    outcome = play(bikes, every(500), first, fits)
    assert outcome.fits == 2
    assert set(fits._known) == {1344, 1844, 2344}
    assert 0.5 < outcome.accuracy < 1.0


def test_a_strategy_ends_with_the_loss_of_the_last_window(bikes: Stream) -> None:
    short = bikes._replace(window=400)
    fits = Fits(short, 1)
    first = fits.until(400)
    assert first is not None
    outcome = play(short, streams.frozen, first, fits)
    assert len(outcome.course) == 20
    assert outcome.log_loss == pytest.approx(statistics.mean(outcome.course))
    assert outcome.ends_with == pytest.approx(statistics.mean(outcome.course[-4:]))
    assert outcome.ends_with != pytest.approx(outcome.log_loss)


def test_a_trainer_that_remembers_looks_back_further_and_tries_the_newest_quarter(
    bikes: Stream,
) -> None:
    training = remembering(bikes).spec.training
    assert [(one.learner, one.history) for one in training.tried] == [
        ("hist_gradient_boosting", 1.0),
        ("hist_gradient_boosting", 0.25),
    ]
    assert (training.maximum_rows, training.refit) == (4 * 1344, True)
    version = Fits(remembering(bikes), 1).until(2400)
    assert version is not None
    assert version.profile.rows == 2400


def test_where_the_newer_is_wanted_nothing_else_differs(bikes: Stream) -> None:
    newer = wanting_newer(bikes)
    assert newer.spec.trial == replace(bikes.spec.trial, to_prove="not worse")
    assert replace(newer.spec, trial=bikes.spec.trial) == bikes.spec


def test_the_picture_has_every_stream_and_strategy_and_is_the_same_again(tmp_path: Path) -> None:
    courses = {name: {one: [0.5, 0.4, 0.6] for one in streams.SHOWN} for name in ("one", "two")}
    for file in ("a.svg", "b.svg"):
        draw(courses, {"one": 2, "two": 1}, tmp_path / file)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    drawn = ElementTree.parse(tmp_path / "a.svg")
    assert [g.get("id") for g in drawn.iter() if str(g.get("id")).startswith("axes")] == [
        "axes_1",
        "axes_2",
    ]


def test_the_same_seed_gives_the_same_figures(bikes: Stream) -> None:
    one, other = (streams.shuffled(bikes, 3)["Driftline"] for _ in range(2))
    assert one == other
    assert one.events == (2400 - 1344) // 2 // 100 * 100
    version = fitted(bikes.spec, bikes.examples.part(0, 1344), 1)
    assert version is not None


def test_alarms_before_a_change_are_false_and_the_first_one_after_is_the_delay() -> None:
    assert streams._told([300, 900, 1100, 1300], 1000, 200) == Told(2, 800, 100)
    stream = load("bikes", None, 1)._replace(drift=1000)
    assert streams._delay(Outcome(0.5, None, 0, [900, 1250]), stream) == "1 / 250"
    assert streams._delay(Outcome(0.5, None, 0, [900]), stream) == "1 / none"
