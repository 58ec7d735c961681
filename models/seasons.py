"""Cells of a season: which hour of the day, or day or hour of the week, it is where a model lives.

Events are placed by the middle of their tick, so that all counts of a tick lie in one cell.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Season = Literal["hour of day", "day of week", "hour of week"]
Ints = NDArray[np.int64]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


class Kind(NamedTuple):
    cells: int
    cell_ms: int  # how long one cell lasts
    cycle_ms: int


#: From few cells to many.
SEASONS: Final[dict[Season, Kind]] = {
    "day of week": Kind(7, DAY_MS, 7 * DAY_MS),
    "hour of day": Kind(24, HOUR_MS, DAY_MS),
    "hour of week": Kind(168, HOUR_MS, 7 * DAY_MS),
}


class Calendar:
    """Where times lie in a season, by the clocks of a time zone (summer time included).

    >>> winter, summer = 1_767_268_800_000, 1_782_907_200_000  # noon in London, 1 January and July
    >>> london = Calendar("Europe/London", tick_ms=1000)
    >>> london.cell("hour of day", winter), london.cell("hour of day", summer)
    (12, 13)
    >>> london.cell("day of week", winter), london.cell("hour of week", winter)
    (3, 84)
    """

    def __init__(self, time_zone: str, tick_ms: int) -> None:
        self._zone = ZoneInfo(time_zone)
        self._tick_ms = tick_ms

    def fits(self, season: Season) -> bool:
        """Whether ticks are short enough to tell the season's cells apart."""
        return self._tick_ms <= SEASONS[season].cell_ms

    def cell(self, season: Season, time_ms: int) -> int:
        """The number of a time's cell, from midnight or Monday's midnight on."""
        middle_ms = time_ms // self._tick_ms * self._tick_ms + self._tick_ms // 2
        return _cell(season, self._zone, middle_ms // 60_000)

    def cells(self, season: Season, times_ms: Ints) -> Ints:
        """As `cell`, of many: shape (n,)."""
        ticks, of = np.unique(times_ms // self._tick_ms, return_inverse=True)
        each = [self.cell(season, tick * self._tick_ms) for tick in ticks.tolist()]
        return np.array(each, dtype=np.int64)[of]


@lru_cache(maxsize=4096)
def _cell(season: Season, zone: ZoneInfo, minute: int) -> int:
    local = datetime.fromtimestamp(minute * 60, tz=UTC).astimezone(zone)
    if season == "hour of day":
        return local.hour
    return local.weekday() if season == "day of week" else local.weekday() * 24 + local.hour
