"""What is shipped to watch Driftline with asks for metrics that it exports, by labels they have."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from stream.core.busy import OTHERS
from stream.core.processor import Batch, Record
from stream.errors import REASONS
from stream.events import SummaryComputed
from stream.inputs import Input
from stream.metrics import METRICS, StageCollector
from tests import summaries, test_scoring
from tests.monitoring import feed, feedback, monitor, prediction
from tests.test_metrics import exported

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())[
        "groups"
    ]
    for rule in group["rules"]
]
SCRAPED = {"job", "instance"}  # Prometheus adds them


def known() -> dict[str, set[str]]:
    """Every metric that a process exports, with its labels."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    process = {sample.name for family in registry.collect() for sample in family.samples}
    return {name: {*told.labels} for name, told in METRICS.items()} | {
        name: set() for name in process
    }


KNOWN = known()


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield f"{path.stem}: {panel['title']}", panel


def asked() -> dict[str, list[tuple[str, str]]]:
    """Of every panel and rule: its expressions, and the text that names their labels."""
    found = {
        where: [(one["expr"], one["legendFormat"]) for one in panel.get("targets", ())]
        for where, panel in panels()
    }
    for rule in RULES:
        words = re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))
        found[rule["alert"]] = [(rule["expr"], " ".join(f"{{{{{w}}}}}" for w in words))]
    return found


ASKED = asked()


class Selected:
    """The selectors in an expression, and the labels by which it is grouped."""

    def __init__(self, expression: str) -> None:
        self.names: set[str] = set()
        self.labels: set[str] = set()
        self.matched: set[str] = set()
        self._visit(promql_parser.parse(expression.replace("$__rate_interval", "5m")))

    def _visit(self, node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            self.names.add(str(node.name))
            self.matched |= {matcher.name for matcher in node.matchers.matchers}
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            self.labels |= set(node.modifier.labels)
        for child in ("expr", "lhs", "rhs"):
            if (below := getattr(node, child, None)) is not None:
                self._visit(below)
        for below in getattr(node, "args", None) or ():
            self._visit(below)


@pytest.mark.parametrize("where", ASKED)
def test_a_panel_or_rule_asks_for_what_is_exported(where: str) -> None:
    """Names, and the labels that it chooses, groups and shows by."""
    for expression, shown in ASKED[where]:
        found = Selected(expression)
        assert found.names, expression
        assert found.names <= KNOWN.keys(), expression
        labels = set.union(*(KNOWN[name] for name in found.names)) | SCRAPED
        assert found.labels | found.matched <= labels, expression
        grouped = found.labels | found.matched or labels
        assert set(re.findall(r"\{\{(\w+)\}\}", shown)) <= grouped, shown


def test_every_metric_is_on_a_dashboard() -> None:
    """Nothing is exported that nobody can see."""
    asked = {
        name
        for where, _ in panels()
        for expression, _ in ASKED[where]
        for name in Selected(expression).names
    }
    assert METRICS.keys() <= asked


def test_a_dashboard_can_be_laid_out() -> None:
    """Ids are unique, and no panel lies on another."""
    for path in DASHBOARDS:
        held = json.loads(path.read_text())["panels"]
        assert len({panel["id"] for panel in held}) == len(held)
        places: Counter[tuple[int, int]] = Counter()
        for panel in held:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            for x in range(at["x"], at["x"] + at["w"]):
                places.update((x, y) for y in range(at["y"], at["y"] + at["h"]))
        assert max(places.values()) == 1


def test_every_rule_tells_what_to_do_at_a_place_that_exists() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description", "runbook"} == rule["annotations"].keys()
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors, rule["alert"]


def test_prometheus_asks_every_service_where_its_doors_are() -> None:
    """And they are open to it, but not to the host."""
    with_doors = {
        name: service
        for name, service in COMPOSE.items()
        if "DRIFTLINE_METRICS_PORT" in service.get("environment", {})
    }
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in PROMETHEUS["scrape_configs"]}
    assert jobs.keys() == with_doors.keys()
    for name, service in with_doors.items():
        environment = service["environment"]
        assert jobs[name]["names"] == [name]
        assert str(jobs[name]["port"]) == environment["DRIFTLINE_METRICS_PORT"]
        assert environment["DRIFTLINE_METRICS_HOST"] == "0.0.0.0"
        assert not [p for p in service.get("ports", ()) if str(jobs[name]["port"]) in p]


def test_what_watches_is_there_only_if_asked_for_and_reads_what_is_shipped() -> None:
    for name in ("prometheus", "grafana"):
        service = COMPOSE[name]
        assert service["profiles"] == ["observability"]
        shipped = [v.split(":") for v in service["volumes"] if v.startswith("./")]
        assert shipped
        assert all((ROOT / source).exists() and mode == "ro" for source, _, mode in shipped)
    mounted = {v.split(":")[0]: v.split(":")[1] for v in COMPOSE["grafana"]["volumes"]}
    provider = ROOT / "deploy/grafana/provisioning/dashboards/driftline.yml"
    [wanted] = yaml.safe_load(provider.read_text())["providers"]
    assert mounted["./deploy/grafana/dashboards"] == wanted["options"]["path"]
    source = ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml"
    assert yaml.safe_load(source.read_text())["datasources"][0]["url"] == "http://prometheus:9090"


# --- labels stay few, whoever writes ------------------------------------------------------------

HOSTILE = '{evil="1"}\n# TYPE x counter\nx 1 \u2028'
MODELS = 10_000


def scraped(stage: str, processor: Any) -> dict[str, set[str]]:
    """Label -> its values, as Prometheus would see them of a stage with this one partition."""
    counts: Counter[str] = Counter(records=1)
    partition = SimpleNamespace(counts=counts, positions={}, processor=processor)
    keeper = SimpleNamespace(
        number=0, partition=partition, at=("wait", 0.0, None), phase_seconds=1.5, restore_seconds=0
    )
    health: Any = SimpleNamespace(
        stage=stage,
        ready=lambda: [HOSTILE],
        away_seconds=0.0,
        runtime=SimpleNamespace(keepers={0: keeper}, counts=Counter()),
        inputs={(0, "requests"): Input(5, 3, 12.0, 100, 0)},
    )
    found: dict[str, set[str]] = {}
    for _, labels in exported(StageCollector(health)):
        for label, value in labels:
            found.setdefault(label, set()).add(value)
    return found


def few(found: dict[str, set[str]]) -> None:
    assert found["reason"]
    assert found["reason"] <= REASONS
    for values in found.values():
        assert len(values) <= 40
        words = values - {OTHERS}
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,40}", value) for value in words), values


def test_ten_thousand_models_and_hostile_names_make_no_label_in_score() -> None:
    score = test_scoring.processor(unknown_model_wait_ms=0)
    records = [test_scoring.request(n, f"{HOSTILE}{n}") for n in range(MODELS)]
    records.append(Record(MODELS, 0, b"k", HOSTILE.encode()))
    score.apply(test_scoring.batch(*records), test_scoring.NOBODY)
    score.apply(test_scoring.batch(), test_scoring.NOBODY)
    assert sum(n for name, n in score.counters.items() if name.startswith("refused:")) > 0
    few(scraped("score", score))


def test_ten_thousand_models_and_hostile_names_make_no_label_in_monitor() -> None:
    processor = monitor(unknown_model_wait_ms=0)
    for n in range(0, MODELS, 50):  # one at a time is slow; each has a model, segment and label
        name = f"{HOSTILE}{n}"
        feed(
            processor,
            prediction(f"p{n}", n, model=name),
            prediction(f"q{n}", n, plan=name),
            feedback(f"q{n}", n, label=name),
            feedback(f"r{n}", n),
        )
    few(scraped("monitor", processor))


def test_ten_thousand_models_and_hostile_names_make_no_label_in_evaluate() -> None:
    processor = summaries.processor()
    hostile = {HOSTILE: 1}
    told = [
        summaries.record(
            SummaryComputed(model=f"{HOSTILE}{n}", version=1, tick=0, partition=0, counters=hostile)
        )
        for n in range(MODELS)
    ]
    processor.apply(Batch("summaries", 0, [*told, Record(0, 0, b"k", HOSTILE.encode())]), {})
    few(scraped("evaluate", processor))
