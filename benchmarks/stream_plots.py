"""The rolling loss of a few strategies on each stream, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

COLOURS: Final = ("#8a8a8a", "#c2780e", "#1f6feb")


def draw(
    courses: Mapping[str, Mapping[str, Sequence[float]]], over: Mapping[str, int], file: Path
) -> None:
    """
    Args:
        courses: by stream and strategy: mean log loss of each tick.
        over: by stream: ticks that the shown mean reaches back over, at most.
    """
    figure = Figure(figsize=(9, 2.2 * len(courses)), layout="constrained")
    panels = figure.subplots(len(courses), 1, squeeze=False)[:, 0]
    for axes, (stream, strategies) in zip(panels, courses.items(), strict=True):
        for colour, (name, course) in zip(COLOURS, strategies.items(), strict=True):
            axes.plot(_rolling(course, over[stream]), color=colour, label=name, linewidth=1.4)
        axes.set_title(stream, loc="left", fontsize=9)
        axes.set_ylabel("log loss", fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    panels[-1].set_xlabel("ticks of 100 labelled events after version 1", fontsize=8)
    with mpl.rc_context({"svg.hashsalt": "driftline"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _rolling(course: Sequence[float], over: int) -> list[float]:
    """
    >>> _rolling([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    return [float(np.mean(course[max(0, at - over + 1) : at + 1])) for at in range(len(course))]
