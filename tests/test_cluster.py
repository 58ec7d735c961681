"""Fits on a real Dask cluster of this machine: one scheduler, two workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from consumers.cluster import LOST, QUEUED, Cluster, LostFit, RemoteFit, request
from consumers.fitting import Fitted, Job
from stream.errors import ConfigurationError
from stream.settings import Settings, load
from tests.broker import free_ports
from tests.patience import PATIENCE_SECONDS
from tests.registries import CHURN
from tests.test_service import REAL_FIT, Trainer, environment, gone, label_predictions
from tests.topics import make_topics

#: What a worker loads first, so that its fits take for ever, and tell their process in a file.
SLOW = """
import sys
from pathlib import Path
from consumers import cluster, fitting
TOLD = 'import time; print(\\'{"doing":"sleeping"}\\', flush=True); time.sleep(600)'
class Slow(fitting.Fit):
    def __init__(self, job):
        super().__init__(job, command=[sys.executable, "-c", TOLD])
        Path("fits", str(self.pid)).touch()
cluster.Fit = Slow
"""


class Dask:
    """A scheduler and two workers, each of one thread, with the settings of `settings`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        [port] = free_ports(1)
        self.address = f"tcp://127.0.0.1:{port}"
        self._port = port
        self.fits = folder / "fits"
        self.fits.mkdir()
        (folder / "slow.py").write_text(SLOW)
        self._folder = folder
        self._environment = {**os.environ, **environment(settings)}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.schedule()

    def schedule(self) -> None:
        where = ("--host", "127.0.0.1", "--port", str(self._port))
        self.scheduler = self._start("scheduler", *where)
        wait(self._answers)

    def _answers(self) -> bool:
        """A client waits for a few seconds only, and Dask may take longer to start."""
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self._port)) == 0

    def hire(self, *options: str) -> None:
        for _ in range(2):
            only = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
            only += ["--local-directory", str(self._folder)]
            self.workers.append(self._start("worker", self.address, *only, *options))

    def dismiss(self) -> None:
        """Those of now would join a scheduler that comes later."""
        for process in self.workers:
            process.kill()
            process.wait(PATIENCE_SECONDS)
        self.workers = []

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "dask", *command, "--no-dashboard"]
        with (self._folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                line, env=self._environment, cwd=self._folder, stdout=log, stderr=log
            )

    def pids(self) -> list[int]:
        return [int(path.name) for path in self.fits.iterdir()]

    def close(self) -> None:
        self.dismiss()
        self.scheduler.kill()
        self.scheduler.wait(PATIENCE_SECONDS)
        for pid in self.pids():
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.cluster.CONNECT_SECONDS", PATIENCE_SECONDS / 2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nobody listens there, and with no spans to read nobody needs to."""
    return Settings(
        bootstrap_servers="127.0.0.1:1",
        registry_url=f"sqlite:///{tmp_path}/registry.db",
        artefact_url=f"file:{tmp_path}/artefacts",
    )


@pytest.fixture
def dask(tmp_path: Path, settings: Settings) -> Iterator[Dask]:
    one = Dask(tmp_path, settings)
    yield one
    one.close()


@pytest.fixture
def cluster(dask: Dask, settings: Settings) -> Iterator[Cluster]:
    one = Cluster(dask.address, settings)
    yield one
    one.close()


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def result(fit: RemoteFit | LostFit) -> Fitted:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (fitted := fit.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return fitted


def job(settings: Settings) -> Job:
    return Job.of(CHURN, settings, [])


def test_a_fit_waits_for_a_worker_and_its_answer_comes_back(
    dask: Dask, cluster: Cluster, settings: Settings
) -> None:
    fit = cluster.start(job(settings))
    time.sleep(0.5)
    assert (fit.poll(), fit.doing) == (None, QUEUED)
    dask.hire()
    fitted = result(fit)
    assert (fitted.verdict, fitted.reason) == ("refused", "0 labelled examples, at least 200")
    assert fit.doing != QUEUED


def test_no_secret_crosses(settings: Settings) -> None:
    url = "postgresql://someone:s3cret@db/driftline"
    told = settings.model_copy(update={"registry_url": url})
    assert "s3cret" in str(job(told).settings)
    assert b"s3cret" not in request(job(told), told, "steps")


def test_a_cancelled_fit_ends_on_its_worker_which_is_free_again(
    dask: Dask, cluster: Cluster, settings: Settings
) -> None:
    dask.hire("--preload", "slow.py")
    fits = [cluster.start(job(settings)) for _ in range(3)]  # one more than there are workers
    wait(lambda: len(dask.pids()) == 2)
    wait(lambda: [fit.doing for fit in fits].count("sleeping") == 2)
    running = set(dask.pids())
    waiting = [fit for fit in fits if fit.doing == QUEUED]
    for fit in fits:
        if fit not in waiting:
            fit.cancel()
    wait(lambda: all(map(gone, running)))
    wait(lambda: waiting[0].doing == "sleeping")
    waiting[0].cancel()


def test_a_fit_ends_when_its_trainer_is_killed(dask: Dask, settings: Settings) -> None:
    dask.hire("--preload", "slow.py")
    program = (
        "import time\n"
        "from consumers.cluster import Cluster\n"
        "from consumers.fitting import Job\n"
        "from stream.settings import load\n"
        "from tests.registries import CHURN\n"
        "cluster = Cluster(load().dask_scheduler, load())\n"
        "fit = cluster.start(Job.of(CHURN, load(), []))\n"
        "time.sleep(600)\n"
    )
    own = {**os.environ, **environment(settings), "DRIFTLINE_DASK_SCHEDULER": dask.address}
    trainer = subprocess.Popen([sys.executable, "-c", program], env=own)
    try:
        wait(dask.pids)
    finally:
        trainer.kill()
        trainer.wait()
    wait(lambda: all(map(gone, dask.pids())))


def test_a_fit_whose_worker_is_killed_begins_again_on_another(
    dask: Dask, cluster: Cluster, settings: Settings
) -> None:
    dask.hire("--preload", "slow.py")
    fit = cluster.start(job(settings))
    wait(dask.pids)
    [first] = dask.pids()
    parent = Path(f"/proc/{first}/stat").read_text().rsplit(")", 1)[1].split()[1]
    os.kill(int(parent), signal.SIGKILL)
    wait(lambda: len(dask.pids()) == 2)
    assert fit.poll() is None
    fit.cancel()


def test_fits_have_failed_while_the_scheduler_is_gone_and_go_on_when_it_is_back(
    dask: Dask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has lost a scheduler looks for it for a while, and then says so."""
    monkeypatch.setattr("consumers.cluster.CONNECT_SECONDS", 5.0)
    cluster = Cluster(dask.address, settings)
    dask.hire("--preload", "slow.py")
    fit = cluster.start(job(settings))
    wait(dask.pids)
    dask.scheduler.kill()
    dask.scheduler.wait()
    fitted = result(fit)
    assert (fitted.verdict, fitted.reason) == ("failed", LOST)
    wait(lambda: "no Dask scheduler answers" in result(cluster.start(job(settings))).reason)
    monkeypatch.setattr("consumers.cluster.CONNECT_SECONDS", PATIENCE_SECONDS / 2)
    dask.dismiss()
    dask.schedule()
    dask.hire()
    wait(lambda: result(cluster.start(job(settings))).verdict == "refused")
    cluster.close()


def test_a_worker_with_other_topics_or_another_store_fits_nothing(
    dask: Dask, settings: Settings
) -> None:
    dask.hire()
    ours = settings.model_copy(update={"topic_prefix": "ours"})
    cluster = Cluster(dask.address, ours)
    fitted = result(cluster.start(job(ours)))
    cluster.close()
    assert fitted.verdict == "failed"
    assert "topic_prefix is 'driftline', not 'ours'" in fitted.reason


def test_a_scheduler_that_does_not_answer_is_said_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.cluster.CONNECT_SECONDS", 0.3)
    [port] = free_ports(1)
    with pytest.raises(ConfigurationError, match="unset dask_scheduler"):
        Cluster(f"tcp://127.0.0.1:{port}", settings)


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:8786", "127.0.0.1:8786", "tls://"])
def test_a_scheduler_that_others_could_speak_to_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="dask_scheduler"):
        load(dask_scheduler=address)


def accepted(trainer: Trainer, count: int) -> bool:
    return [run.verdict for run in trainer.registry.runs("churn")] == ["accepted"] * count


def test_a_retrain_on_the_cluster_makes_the_same_bytes_as_beside_the_trainer(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    make_topics(kafka_settings)
    dask = Dask(tmp_path, kafka_settings)
    trainer = Trainer(kafka_settings)
    label_predictions(trainer, 600)
    try:
        dask.hire()
        for count, scheduler in ((1, dask.address), (2, None)):
            trainer.settings = kafka_settings.model_copy(update={"dask_scheduler": scheduler})
            trainer.start(REAL_FIT)
            trainer.send("retrain", f"r{count}")
            wait(partial(accepted, trainer, count))
            assert trainer.end(signal.SIGTERM) == 0
        second, first = trainer.registry.runs("churn")
        assert first.artefact_digest == second.artefact_digest
        assert (tmp_path / "dask.log").read_text().count("fit begun") == 1
    finally:
        trainer.close()
        dask.close()
