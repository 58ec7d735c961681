"""The demo's real data as things that happen: something to predict, and later its truth."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import NamedTuple

from models.spec import Task
from stream.envelope import to_ms

HOUR_MS = 3_600_000
BUSY_RIDES = 150
# New York moved to summer time on this morning of 2013: from five hours behind UTC to four.
SUMMER_TIME = datetime(2013, 3, 10, 2)  # noqa: DTZ001  a wall clock's reading


class Happening(NamedTuple):
    """One prediction to be asked for, and its truth where there ever is one."""

    prediction_id: str
    asked_ms: int
    features: dict[str, float | str | None]
    known_ms: int | None
    label: str | float | None


def bikes(task: Task = "binary") -> list[Happening]:
    """Each hour in Washington D.C.: will it be busy (or, as regression, how many rides)?

    Asked when the hour begins, known when it is over.
    """
    happenings = []
    for row in _rows("bikes.csv.gz"):
        start = datetime.fromisoformat(row["date"]).replace(tzinfo=UTC)
        asked_ms = to_ms(start + timedelta(hours=int(row["hour"])))
        rides = int(row["rides"])
        happenings.append(
            Happening(
                prediction_id=f"{row['date']}T{int(row['hour']):02d}",
                asked_ms=asked_ms,
                features={
                    "hour": float(row["hour"]),
                    "weekday": row["weekday"],
                    "workingday": row["workingday"],
                    "weather": row["weather"],
                    **{
                        name: float(row[name])
                        for name in ("temp", "feels_like", "humidity", "windspeed")
                    },
                },
                known_ms=asked_ms + HOUR_MS,
                label=float(rides) if task == "regression" else _busy(rides),
            )
        )
    return happenings


def flights() -> list[Happening]:
    """Each departure from New York: will it arrive more than 15 minutes late?

    Asked at the scheduled departure, known at the actual arrival, never for a cancelled flight.
    """
    happenings = []
    for number, row in enumerate(_rows("flights.csv.gz")):
        month, day = row["date"].split("-")
        hour, minute = divmod(int(row["scheduled"]), 100)
        local = datetime(2013, int(month), int(day), hour, minute)  # noqa: DTZ001
        behind = timedelta(hours=5 if local < SUMMER_TIME else 4)
        asked_ms = to_ms((local + behind).replace(tzinfo=UTC))
        landed = row["landed_after_minutes"]
        happenings.append(
            Happening(
                prediction_id=f"2013-{row['date']}-{number}",
                asked_ms=asked_ms,
                features={
                    "hour": hour + minute / 60,
                    "distance": float(row["distance"]),
                    "weekday": str(local.weekday()),
                    **{name: row[name] for name in ("carrier", "origin", "destination")},
                },
                known_ms=asked_ms + int(landed) * 60_000 if landed else None,
                label=("late" if row["late"] == "1" else "in time") if landed else None,
            )
        )
    return sorted(happenings, key=lambda happening: happening.asked_ms)


def history_csv(happenings: list[Happening]) -> str:
    """Labelled happenings as the table that `driftline models add --data` reads."""
    labelled = [happening for happening in happenings if happening.known_ms is not None]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(labelled[0].features)
    writer.writerow(["time", *names, "label"])
    for happening in labelled:
        time = datetime.fromtimestamp(happening.asked_ms / 1000, tz=UTC).isoformat()
        writer.writerow([time, *(happening.features[name] for name in names), happening.label])
    return out.getvalue()


def _busy(rides: int) -> str:
    return "busy" if rides > BUSY_RIDES else "quiet"


def _rows(name: str) -> Iterator[dict[str, str]]:
    packed = resources.files("consumers.demo").joinpath("data", name).read_bytes()
    return csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))
