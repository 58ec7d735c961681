"""A run as OpenLineage events (specification 2-0-2): what was read, what came of it.

START when it began, and COMPLETE, FAIL or ABORT when it has its verdict. Ids follow from the run,
so sending twice does no harm. What the standard has no facet for is in facets of our own.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import msgspec

from models.runs import Run, Verdict

SPEC: Final = "https://openlineage.io/spec"
EVENT: Final = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS: Final[Mapping[str, str]] = {
    "DataQualityMetricsInputDatasetFacet": "1-0-3",
    "DatasetVersionDatasetFacet": "1-0-1",
    "ErrorMessageRunFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "ProcessingEngineRunFacet": "1-1-1",
}
NAMESPACE: Final = "driftline"
ENDS: Final[Mapping[Verdict, str]] = {
    "accepted": "COMPLETE",
    "refused": "FAIL",
    "failed": "FAIL",
    "cancelled": "ABORT",
    "void": "ABORT",
}

Event = dict[str, Any]


def events(run: Run, broker: str) -> list[Event]:
    """
    Args:
        broker: host:port, which tells topics of one cluster from those of another.
    """
    begun = _event(run, "START", run.started_ms, _inputs(run, broker), [])
    if run.finished_ms is None:
        return [begun]
    return [
        begun,
        _event(run, ENDS[run.verdict], run.finished_ms, _inputs(run, broker), _outputs(run)),
    ]


def _event(
    run: Run, kind: str, time_ms: int, inputs: list[Event], outputs: list[Event]
) -> dict[str, Any]:
    facets = {
        "processing_engine": _standard(
            "ProcessingEngineRunFacet", name="driftline", version=run.libraries.get("driftline", "")
        ),
        "driftline_run": _own("run", **_told(run)),
    }
    if kind in ("FAIL", "ABORT"):
        facets["errorMessage"] = _standard(
            "ErrorMessageRunFacet", message=run.reason or run.verdict, programmingLanguage="PYTHON"
        )
    job = {
        "namespace": NAMESPACE,
        "name": f"train.{run.model}",
        "facets": {
            "jobType": _standard(
                "JobTypeJobFacet",
                processingType="BATCH",
                integration="DRIFTLINE",
                jobType="TRAINING",
            )
        },
    }
    return {
        "eventType": kind,
        "eventTime": datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(),
        "producer": _producer(),
        "schemaURL": EVENT,
        "run": {"runId": run_uuid(run), "facets": facets},
        "job": job,
        "inputs": inputs,
        "outputs": outputs,
    }


def run_uuid(run: Run) -> str:
    """The same for the same run of the same registry, whoever asks."""
    return str(
        uuid.uuid5(uuid.NAMESPACE_URL, f"driftline:{run.model}:{run.run_id}:{run.started_ms}")
    )


def _inputs(run: Run, broker: str) -> list[Event]:
    data = run.data
    if data is None:
        return []
    rows = {
        "dataQualityMetrics": _standard(
            "DataQualityMetricsInputDatasetFacet", rowCount=data.rows, columnMetrics={}
        )
    }
    facts = {"digest": data.digest, "labelled": data.labelled, "predictions": data.predictions}
    if data.source:
        own = {"driftline_data": _own("data", **facts)}
        return [{"namespace": "file", "name": data.source, "facets": own, "inputFacets": rows}]
    ranges: dict[str, list[Event]] = defaultdict(list)
    for part in data.ranges:
        ranges[part.topic].append(
            {"partition": part.partition, "first": part.first, "end": part.end}
        )
    return [
        {
            "namespace": f"kafka://{broker}",
            "name": topic,
            "facets": {"driftline_data": _own("data", offsets=parts, **facts)},
            "inputFacets": rows,
        }
        for topic, parts in ranges.items()
    ]


def _outputs(run: Run) -> list[Event]:
    if run.version is None:
        return []
    metrics = run.chosen.metrics if run.chosen is not None else {}
    own = _own(
        "version",
        artefactDigest=run.artefact_digest,
        profileDigest=run.profile_digest,
        metrics=msgspec.to_builtins(metrics),
    )
    known = _standard("DatasetVersionDatasetFacet", datasetVersion=str(run.version))
    return [
        {
            "namespace": NAMESPACE,
            "name": f"models.{run.model}",
            "facets": {"version": known, "driftline_version": own},
        }
    ]


def _told(run: Run) -> dict[str, Any]:
    """Why it ran, and what could change its result."""
    return {
        "id": run.run_id,
        "cause": run.cause,
        "commandId": run.command_id or "",
        "alertId": run.alert_id or "",
        "who": run.who,
        "verdict": run.verdict,
        "specRevision": run.spec_revision,
        "seed": run.seed,
        "parameters": msgspec.to_builtins(run.parameters),
        "libraries": run.libraries,
    }


def _standard(facet: str, /, **fields: Any) -> dict[str, Any]:
    schema = f"{SPEC}/facets/{FACETS[facet]}/{facet}.json#/$defs/{facet}"
    return {"_producer": _producer(), "_schemaURL": schema, **fields}


def _own(facet: str, /, **fields: Any) -> dict[str, Any]:
    schema = f"urn:driftline:facet:{facet}:1"
    return {"_producer": _producer(), "_schemaURL": schema, **fields}


def _producer() -> str:
    return f"urn:driftline:{version('driftline')}"
