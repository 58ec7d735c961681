"""The console with a large fleet: how soon its pages can be used, and what it holds in memory.

    python -m benchmarks.console [--quick] [--json] [--models 1000] [--windows 5000]

A database is filled through `History` as the reader does it; then the console is a process of its
own, without a broker, and chromium opens its pages. A page can be used when its rows, or its chart,
are there. `--windows` is how many one model has; the others have a tenth of that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from msgspec import structs

from benchmarks.reporting import parser, report, say, spread
from consumers.console.history import Came, History
from consumers.console.store import open_database
from stream.settings import Settings
from tests.broker import free_ports
from tests.browsers import launcher
from tests.consoles import SPEC, drifted, lifecycle, measured, settings_in

NOW: Final = 1_795_700_000_000
BATCH: Final = 5_000
MIB: Final = 1 << 20


def fill(settings: Settings, models: int, windows: int) -> float:
    """Store the past of a fleet; records stored per second."""
    database = open_database(settings.console_url)
    history = History(database, points=windows)
    begun, stored = time.perf_counter(), 0
    batch: list[Came] = []
    for number in range(models):
        name = f"model-{number:04}"
        batch.append(Came(NOW, lifecycle(model=name, spec=structs.replace(SPEC, name=name))))
        many = windows if number == 0 else windows // 10
        for hour in range(24, 24 + many):
            value = 0.9 - (number % 7) / 50 + (hour % 24) / 1000
            batch.append(Came(NOW, measured(value, model=name, hour=hour)))
            if hour > many:
                batch.append(Came(NOW, structs.replace(drifted("age", 0.1, hour=hour), model=name)))
        if len(batch) >= BATCH:
            history.add(batch, {})
            stored, batch = stored + len(batch), []
    history.add(batch, {})
    database.close()
    return (stored + len(batch)) / (time.perf_counter() - begun)


def start(settings: Settings, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        f"DRIFTLINE_{name.upper()}": str(getattr(settings, name))
        for name in ("bootstrap_servers", "registry_url", "console_url", "console_port")
    }
    with (folder / "console.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "consumers", "console"], env=environment, stdout=log, stderr=log
        )


def answer_within(url: str, seconds: float) -> float:
    """Seconds until the console answers."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/api/fleet").read()
            return time.perf_counter() - begun
        time.sleep(0.05)
    raise RuntimeError("the console did not start")


def pages(url: str, rounds: int) -> dict[str, list[float]]:
    """Seconds until fleet and model page can be used, in a browser that has seen them once."""
    ready = {"fleet": ("/", ".fleet tbody tr"), "model": ("/models/model-0000", "#quality canvas")}
    took: dict[str, list[float]] = {name: [] for name in ready}
    with launcher() as launch:
        page = launch()
        for number in range(rounds + 1):
            for name, (path, selector) in ready.items():
                begun = time.perf_counter()
                page.goto(url + path, wait_until="commit")
                page.wait_for_selector(selector)
                if number:
                    took[name].append(time.perf_counter() - begun)
    return took


def main() -> None:
    one = parser(__doc__ or "")
    one.add_argument("--models", type=int, default=1000)
    one.add_argument("--windows", type=int, default=5000)
    arguments = one.parse_args()
    models, windows = (200, 1000) if arguments.quick else (arguments.models, arguments.windows)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        folder, [port] = Path(name), free_ports(1)
        settings = settings_in(folder, console_port=port)
        say(f"storing {models} models, {windows} windows of the first, a tenth of the others")
        rate = fill(settings, models, windows)
        size = (folder / "console.db").stat().st_size / MIB
        url = f"http://localhost:{port}"
        process = start(settings, folder)
        try:
            begin = answer_within(url, 60)
            took = pages(url, 3 if arguments.quick else 10)
            memory = psutil.Process(process.pid).memory_info().rss / MIB
        finally:
            process.terminate()
            process.wait(10)
    fleet, model = spread(took["fleet"]), spread(took["model"])
    report(
        f"{models} models, {windows} windows of one",
        ("what", "figure"),
        [
            ("fleet page can be used, seconds", f"{fleet:.2f}"),
            ("model page can be used, seconds", f"{model:.2f}"),
            ("from start to the first answer, seconds", f"{begin:.1f}"),
            ("memory of the console, MiB", f"{memory:.0f}"),
            ("database, MiB", f"{size:.0f}"),
            ("records stored per second", f"{rate:,.0f}"),
        ],
        {
            "models": models,
            "windows": windows,
            "fleet_seconds": fleet.median,
            "model_seconds": model.median,
            "start_seconds": begin,
            "memory_mib": memory,
            "database_mib": size,
            "stored_per_second": rate,
        },
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
