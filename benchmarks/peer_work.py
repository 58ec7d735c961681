"""What users would pick instead, on the rows of `watched`; run by the Python of each peer's own.

    python -m benchmarks.peer_work evidently ROWS.npz 1000x3

Each is used as its documentation says, with its defaults, and told all that makes it faster: frames
are made beforehand, a reference is fitted beforehand, and where it can take many windows in one
call it gets them so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from benchmarks.watched import NAMES, Rows, Way, answer


def _frame(_: int, window: Rows) -> Any:
    import pandas as pd

    frame = pd.DataFrame(window.features, columns=list(NAMES))
    frame["score"] = window.scores
    frame["predicted"] = (window.scores >= 0.5).astype(int)
    frame["label"] = window.labels.astype(int)
    return frame


def _evidently(_: int, *, figures: bool) -> Way:
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.presets import ClassificationPreset, DataDriftPreset

    if not figures:
        _leave_figures_out()
    definition = DataDefinition(
        numerical_columns=[*NAMES, "score"],
        categorical_columns=["predicted", "label"],
        classification=[BinaryClassification(target="label", prediction_labels="predicted")],
    )

    def dress(number: int, window: Rows) -> Any:
        return Dataset.from_pandas(_frame(number, window), data_definition=definition)

    def prepare(reference: Rows) -> Callable[[Sequence[Any]], object]:
        known = dress(0, reference)
        report = Report([DataDriftPreset(), ClassificationPreset()])
        return lambda windows: [report.run(window, known).dict() for window in windows]

    return Way(dress, prepare, version("evidently"))


def _leave_figures_out() -> None:
    """It draws whatever it computes, shown or not; no option of it turns that off."""
    from evidently.core import container, report

    def draw_nothing(*_: object) -> list[object]:
        return []

    class NoRenderer:
        render_html = draw_nothing

    report.find_metric_renderer = lambda *_: NoRenderer()
    kinds = [container.MetricContainer]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind.render = draw_nothing


def _nannyml(size: int, *, method: str) -> Way:
    import nannyml
    import pandas as pd

    def prepare(reference: Rows) -> Callable[[Sequence[Any]], object]:
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=[*NAMES, "score"], continuous_methods=[method], chunk_size=size
        )
        calculator.fit(_frame(0, reference))
        return lambda windows: calculator.calculate(pd.concat(windows, ignore_index=True))

    return Way(_frame, prepare, version("nannyml"))


def _whylogs(_: int, *, distributions: bool) -> Way:
    import whylogs
    from whylogs.core.datatypes import Fractional
    from whylogs.core.metrics import StandardMetric
    from whylogs.core.resolvers import MetricSpec, ResolverSpec
    from whylogs.core.schema import DeclarativeSchema

    wanted = [ResolverSpec(Fractional, metrics=[MetricSpec(StandardMetric.distribution.value)])]
    schema = DeclarativeSchema(wanted) if distributions else None

    def dress(number: int, window: Rows) -> Any:
        """What `counts` gets and no more: it profiles every column."""
        return _frame(number, window)[[*NAMES, "score"]]

    def prepare(_: Rows) -> Callable[[Sequence[Any]], object]:
        return lambda windows: [whylogs.log(pandas=one, schema=schema).view() for one in windows]

    return Way(dress, prepare, version("whylogs"))


def _events(_: int, window: Rows) -> list[tuple[dict[str, float], bool, bool]]:
    """Features by name, what was predicted, and what turned out."""
    return [
        (dict(zip(NAMES, row, strict=True)), score >= 0.5, bool(label))
        for row, score, label in zip(
            window.features.tolist(), window.scores.tolist(), window.labels.tolist(), strict=True
        )
    ]


def _river(size: int, *, detector: str) -> Way:
    from river import drift, metrics, utils

    def prepare(_: Rows) -> Callable[[Sequence[Any]], object]:
        def work(windows: Sequence[Any]) -> object:
            accuracy = utils.Rolling(metrics.Accuracy, window_size=size)
            detectors = {name: getattr(drift, detector)() for name in NAMES}
            error = getattr(drift, detector)()
            for window in windows:
                for features, predicted, label in window:
                    accuracy.update(label, predicted)
                    error.update(predicted != label)
                    for name, value in features.items():
                        detectors[name].update(value)
            return accuracy.get()

        return work

    return Way(_events, prepare, version("river"))


WAYS: Final[dict[str, Callable[[int], Way]]] = {
    "evidently": partial(_evidently, figures=True),
    "evidently_no_figures": partial(_evidently, figures=False),
    "nannyml_js": partial(_nannyml, method="jensen_shannon"),
    "nannyml_ks": partial(_nannyml, method="kolmogorov_smirnov"),
    "whylogs": partial(_whylogs, distributions=False),
    "whylogs_distributions": partial(_whylogs, distributions=True),
    "river_adwin": partial(_river, detector="ADWIN"),
    "river_kswin": partial(_river, detector="KSWIN"),
}

if __name__ == "__main__":
    answer(WAYS, sys.argv[1:])
