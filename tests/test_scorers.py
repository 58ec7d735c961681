"""What the benchmarks compare the score stage with predicts what the score stage predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import workload
from benchmarks.scorers import Model, outputs_of
from models import serving


def test_other_tools_get_the_weights_of_the_same_model(tmp_path: Path) -> None:
    version = workload.versions(1)[0]
    requests = [json.loads(one.value or b"")["features"] for one in workload.requests(50)]

    model = Model(**json.loads(workload.write_weights(version, tmp_path).read_text()))

    ours = serving.load(version.artefact, workload.SPEC).predict(
        [tuple(one.values()) for one in requests]
    )
    np.testing.assert_allclose(outputs_of(model)(requests), ours[:, 0], rtol=1e-12)


def test_without_a_model_nothing_is_predicted() -> None:
    assert outputs_of(None)([{"x0": 3.0}]) == [0.0]
