"""Model cards say what the record says, to people and to browsers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from consumers import plots
from consumers.cards import page, write
from models.cards import PLOTS, Subject, markdown
from models.careers import Turn
from models.runs import Calibration, Candidate, DataRange, Figure, OffsetRange, Run, Stretch
from models.spec import Feature, ModelSpec

DAY_MS = 86_400_000
SPEC = ModelSpec(
    name="churn",
    task="binary",
    classes=("stays", "leaves"),
    features=(Feature(name="age"), Feature(name="plan", type="categorical")),
    segments=("plan",),
    owner="ada",
)
CHOSEN = Candidate(
    name="linear",
    metrics={"log_loss": Figure(0.31, 0.29, 0.33), "correct": Figure(0.9, 0.88, 0.92)},
    segments={"plan=basic": {"log_loss": Figure(0.4, 0.3, 0.5)}},
    calibration=[
        Calibration(50, 0.2, Figure(0.25, 0.15, 0.4)),
        Calibration(50, 0.8, Figure(0.6, 0.5, 0.7)),
    ],
    course=[Stretch(90 * DAY_MS, 50, Figure(0.3, 0.2, 0.4)), Stretch(91 * DAY_MS, 50, Figure(0.3))],
    fit_seconds=0.25,
    latency_ms={"1 row": 0.05},
    chosen=True,
)
BASELINE = Candidate(name="constant", metrics={"log_loss": Figure(0.6, 0.58, 0.62)})
RUN = Run(
    run_id=7,
    model="churn",
    cause="harm",
    command_id="c-1",
    alert_id="a-1",
    who="driftline",
    evidence={"harm": 33.25},
    generation=4,
    spec_revision=1,
    seed=5,
    parameters={"fitted_rows": 300, "held_out_rows": 100, "split_ms": 90 * DAY_MS, "late_rows": 12},
    libraries={"scikit-learn": "1.9.1"},
    data=DataRange(
        ranges=[OffsetRange(topic="driftline.examples.v1", partition=0, first=5, end=605)],
        start_ms=0,
        end_ms=92 * DAY_MS,
        predictions=600,
        labelled=420,
        rows=400,
        digest="d" * 64,
    ),
    candidates=[CHOSEN, Candidate(name="boosted", problem="took too long"), BASELINE],
    attempts=1,
    started_ms=100 * DAY_MS,
    finished_ms=100 * DAY_MS + 1,
    verdict="accepted",
    reason="",
    artefact_digest="e" * 64,
    profile_digest="f" * 64,
    version=3,
)
CAREER = [
    Turn(part="challenger", changed_ms=0, generation=5, action="challenge", who="driftline"),
    Turn(
        part="champion",
        changed_ms=DAY_MS,
        generation=6,
        action="promote",
        who="driftline",
        evidence={"e_value": 41.5},
    ),
]
SUBJECT = Subject(RUN, SPEC, CAREER)


class Page(HTMLParser):
    """What a page holds that could run, load or leave it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data") and not (value or "").startswith("#"):
                self.outside.append(f"{name}={value}")
            if name.startswith("on"):
                self.outside.append(name)


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    return page


def test_a_card_tells_purpose_data_quality_segments_calibration_service_and_origin() -> None:
    card = markdown(SUBJECT).replace("\\", "")

    for said in (
        "# churn, version 3",
        "the probability of 'leaves' rather than 'stays' from 2 features",
        "420 of 600 predictions (70.0%)",
        "| driftline.examples.v1[0] | offsets 5 to 604 |",
        "300 older rows were fitted, the newest 100 were held out",
        "12 older ones were labelled only after that",
        "| linear (chosen) | 0.31 (0.29 to 0.33) | 0.9 (0.88 to 0.92) | 0.25 |",
        "| boosted |  |  |  | took too long |",
        "| plan=basic | 0.4 (0.3 to 0.5) |",
        "| 50 | 0.8 | 0.6 (0.5 to 0.7) |",
        "| 1970-01-02 00:00 UTC | champion | promote, driftline |  | e_value 41.5 |",
        "| scikit-learn | 1.9.1 |",
        f"| artefact | {'e' * 64} |",
        "| evidence | harm 33.25 |",
        "Predicting takes, on the machine that trained it: 1 row 0.05 ms",
    ):
        assert said in card


def test_a_card_says_what_its_own_record_gives_cause_to_doubt() -> None:
    card = markdown(SUBJECT)
    weak = replace(CHOSEN, metrics={"gain": Figure(0.01, -0.01, 0.03)}, notes=["did not converge"])
    doubted = markdown(SUBJECT._replace(run=replace(RUN, candidates=[weak, BASELINE])))

    assert "Only 70.0% of the predictions" in card
    assert "In 1 of 2 groups its outputs are not calibrated" in card
    assert "the features may" not in card
    assert "the features may" in doubted.replace("\n", " ")
    assert "did not converge" in doubted


def test_a_refused_run_has_a_card_too() -> None:
    refused = replace(
        RUN, verdict="refused", reason="one class", candidates=[], version=None, data=None
    )
    card = markdown(Subject(refused, SPEC, []))

    assert "# churn, run 7" in card
    assert "**refused**: one class" in card
    assert "No data was read." in card
    assert plots.plots(refused) == {}
    assert "<svg" not in page(Subject(refused, SPEC, []))


def test_a_page_holds_every_plot_and_loads_nothing() -> None:
    html = page(SUBJECT)
    found = parsed(html)

    assert found.tags.count("svg") == len(PLOTS) == 4
    assert found.outside == []
    assert "script" not in found.tags
    assert len(found.ids) == len(set(found.ids))
    assert "driftline-plot" not in html
    assert html.count("<table>") >= 6


def test_what_users_write_stays_text() -> None:
    """Names of segments come from data: whoever may send events may choose them."""
    evil = '<img src=x onerror=alert(1)> | [a](javascript:b) $\\frac{1}$ `c` "><script>'
    segments = {f"plan={evil}": CHOSEN.segments["plan=basic"]}
    run = replace(RUN, candidates=[replace(CHOSEN, segments=segments)], reason=evil, cause=evil)
    html = page(Subject(run, replace(SPEC, description=evil), CAREER))
    found = parsed(html)

    assert found.outside == []
    assert {"script", "img", "a"}.isdisjoint(found.tags)
    [row] = [line for line in html.splitlines() if "plan=&lt;img" in line and "<td>" in line]
    assert row.count("<td>") == 1
    assert html.count(escape(evil)) >= 3  # no sign of it was taken for a sign of Markdown's


def test_the_same_record_gives_the_same_plots() -> None:
    """So that a card can be compared, and kept under a digest."""
    assert plots.plots(RUN) == plots.plots(RUN)
    assert page(SUBJECT) == page(SUBJECT)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_is_well_formed_and_its_words_are_words(plot: str) -> None:
    svg = plots.plots(RUN)[plot]  # type: ignore[index]
    root = ET.fromstring(svg)
    words = " ".join(node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text"))

    assert re.search("log loss|came true", words)


def test_markdown_has_its_plots_beside_it(tmp_path: Path) -> None:
    files = write(SUBJECT, tmp_path / "card 7.md")

    assert sorted(tmp_path.iterdir()) == sorted(files)
    card = files[0].read_text()
    for file in files[1:]:
        assert f"(<{file.name}>)" in card
    assert [path.name for path in write(SUBJECT, tmp_path / "c.html")] == ["c.html"]
