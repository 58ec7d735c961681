"""OpenLineage events: the standard's own classes take them whole."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from msgspec.structs import replace
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent
from openlineage.client.serde import Serde

from models import lineage
from models.runs import DataRange, Verdict
from tests.test_cards import RUN

#: Facet of ours -> module and class of the standard's that it claims to be.
STANDARD = {
    "processing_engine": ("processing_engine_run", "ProcessingEngineRunFacet"),
    "errorMessage": ("error_message_run", "ErrorMessageRunFacet"),
    "jobType": ("job_type_job", "JobTypeJobFacet"),
    "version": ("dataset_version_dataset", "DatasetVersionDatasetFacet"),
    "dataQualityMetrics": (
        "data_quality_metrics_input_dataset",
        "DataQualityMetricsInputDatasetFacet",
    ),
}
EVERY: list[Verdict] = ["accepted", "refused", "failed", "cancelled", "void"]


def facets(of: dict[str, Any], key: str = "facets") -> dict[str, Any]:
    """The standard's facets as its own objects, ours as they are; each must say what it is."""
    found: dict[str, Any] = {}
    for name, facet in of.get(key, {}).items():
        if name not in STANDARD:
            assert facet["_schemaURL"].startswith("urn:driftline:facet:")
            continue
        module, kind = STANDARD[name]
        made = getattr(importlib.import_module(f"openlineage.client.generated.{module}"), kind)
        assert facet["_schemaURL"] == made._get_schema()
        fields = {k: v for k, v in facet.items() if not k.startswith("_")}
        found[name] = made(**fields, producer=facet["_producer"])
    return found


def official(event: dict[str, Any]) -> dict[str, Any]:
    """The event through the standard's classes, which check what they are given."""
    made = RunEvent(
        eventType=event["eventType"],
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=Run(event["run"]["runId"], facets(event["run"])),
        job=Job(event["job"]["namespace"], event["job"]["name"], facets(event["job"])),
        inputs=[
            InputDataset(
                one["namespace"],
                one["name"],
                facets=facets(one),
                inputFacets=facets(one, "inputFacets"),
            )
            for one in event["inputs"]
        ],
        outputs=[
            OutputDataset(one["namespace"], one["name"], facets=facets(one))
            for one in event["outputs"]
        ],
    )
    return json.loads(Serde.to_json(made))  # type: ignore[no-any-return]


def standard(event: Any) -> Any:
    """Without what is ours, and without what is empty, as the standard's classes write it."""
    if isinstance(event, list):
        return [standard(one) for one in event]
    if not isinstance(event, dict):
        return event
    kept = {k: standard(v) for k, v in event.items() if not k.startswith("driftline_")}
    return {k: v for k, v in kept.items() if v not in ({}, [], None)}


@pytest.mark.parametrize("verdict", EVERY)
def test_the_standard_takes_every_event_whole(verdict: Verdict) -> None:
    run = replace(
        RUN, verdict=verdict, reason="one class", version=3 if verdict == EVERY[0] else None
    )
    for event in lineage.events(run, "kafka:9092"):
        assert standard(official(event)) == standard(event)


def test_a_version_comes_from_the_offsets_that_it_was_made_of() -> None:
    begun, ended = lineage.events(RUN, "kafka:9092")

    assert (begun["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert begun["run"]["runId"] == ended["run"]["runId"]
    [source] = ended["inputs"]
    assert (source["namespace"], source["name"]) == ("kafka://kafka:9092", "driftline.examples.v1")
    assert source["facets"]["driftline_data"]["offsets"] == [
        {"partition": 0, "first": 5, "end": 605}
    ]
    [version] = ended["outputs"]
    assert version["name"] == "models.churn"
    assert version["facets"]["version"]["datasetVersion"] == "3"
    assert ended["run"]["facets"]["driftline_run"]["cause"] == "harm"
    assert begun["outputs"] == []


def test_what_ended_otherwise_says_why_and_has_no_output() -> None:
    refused = replace(RUN, verdict="refused", reason="one class", version=None)
    _, ended = lineage.events(refused, "k:1")

    assert ended["eventType"] == "FAIL"
    assert ended["run"]["facets"]["errorMessage"]["message"] == "one class"
    assert ended["outputs"] == []
    running = replace(RUN, verdict="running", finished_ms=None, version=None, data=None)
    assert [event["eventType"] for event in lineage.events(running, "k:1")] == ["START"]


def test_a_file_is_an_input_too() -> None:
    filed = replace(RUN, data=DataRange(source="h.csv", rows=5, digest="d"))
    [source] = lineage.events(filed, "k:1")[1]["inputs"]

    assert (source["namespace"], source["name"]) == ("file", "h.csv")


def test_sent_again_an_event_is_the_same_and_other_runs_have_other_ids() -> None:
    assert lineage.events(RUN, "k:1") == lineage.events(RUN, "k:1")
    others = [
        replace(RUN, run_id=8),
        replace(RUN, model="other"),
        replace(RUN, started_ms=1),
    ]
    assert len({lineage.run_uuid(run) for run in [RUN, *others]}) == 4
