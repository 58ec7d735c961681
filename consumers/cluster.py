"""Fits on a Dask cluster, in place of beside the trainer. Needs the extra `dask`.

The trainer submits a job; a Dask worker runs it as the trainer would, in a child process with the
same limits (`consumers.fitting`). What crosses is JSON in bytes, and no secret: Driftline is
installed on the workers, and each has settings of its own, from its own environment. They must
name the same topics and the same store of artefacts. Results are taken from Dask without pickle.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from consumers.fitting import Fit, Fitted, Job
from stream.errors import ConfigurationError
from stream.settings import Settings, load

log = structlog.get_logger("driftline.cluster")

POLL_SECONDS: Final = 0.2
CONNECT_SECONDS: Final = 5.0
QUEUED: Final = "waiting for a worker of the cluster"
LOST: Final = "the connection to the Dask scheduler was lost"


class Asked(Struct, frozen=True, kw_only=True):
    """A job without the trainer's settings, and what the worker's must agree with.

    Attributes:
        topic: under which to report steps.
    """

    job: Job
    topic_prefix: str
    artefact_url: str
    topic: str


class Cluster:
    """A Dask cluster, by the address of its scheduler.

    Raises:
        ConfigurationError: Dask is not installed, or nobody answers.
    """

    def __init__(self, address: str, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        self._client = connect(address)
        self._number = 0

    def start(self, job: Job) -> RemoteFit | LostFit:
        """Hand a fit to the cluster; to a scheduler that was away, by a new connection."""
        if self._client.status == "closed":
            try:
                self._client = connect(self._address)
            except ConfigurationError as error:
                return LostFit(str(error))
        self._number += 1
        topic = f"driftline-{self._client.id}-{self._number}"
        return RemoteFit(self._client, topic, request(job, self._settings, topic))

    def close(self) -> None:
        self._client.close()


def connect(address: str) -> Any:
    """A client of Dask.

    Raises:
        ConfigurationError: it is not installed, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ConfigurationError(
            "Dask is not installed here: pip install distributed, or unset dask_scheduler"
        ) from None
    families = ["dask", "msgpack"]  # not pickle: nothing that comes back is run
    try:
        return Client(
            address,
            name="driftline-trainer",
            timeout=CONNECT_SECONDS,
            set_as_default=False,
            serializers=families,
            deserializers=families,
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {address} ({error}); start `dask scheduler`, "
            "or unset dask_scheduler"
        ) from error


def request(job: Job, settings: Settings, topic: str) -> bytes:
    """What is sent to the cluster for a fit."""
    asked = Asked(
        job=msgspec.structs.replace(job, settings={}),
        topic_prefix=settings.topic_prefix,
        artefact_url=settings.artefact_url,
        topic=topic,
    )
    return msgspec.json.encode(asked)


class RemoteFit:
    """A fit that was handed to the cluster; it is what `consumers.fitting.Fit` is to the trainer.

    Attributes:
        doing: the step that it began last.
    """

    def __init__(self, client: Any, topic: str, asked: bytes) -> None:
        self.doing = QUEUED
        self._client = client
        self._topic = topic
        client.subscribe_topic(topic, self._hear)
        self._future: Any = client.submit(work, asked, key=topic, pure=False)

    def _hear(self, event: tuple[float, Any]) -> None:
        self.doing = str(event[1])

    def poll(self) -> Fitted | None:
        """The result once there is one."""
        status = self._future.status
        if status == "pending":
            return None
        fitted = self._ended(status)
        self._forget()
        return fitted

    def _ended(self, status: str) -> Fitted:
        if status == "finished":
            return msgspec.json.decode(self._future.result(CONNECT_SECONDS), type=Fitted)
        if status == "error":
            error = self._future.exception(CONNECT_SECONDS)
            return Fitted(verdict="failed", reason=f"on the cluster: {error}"[:500])
        return Fitted(verdict="failed", reason=LOST)

    def cancel(self) -> None:
        """Take it back: whoever runs it sees that nobody wants it, and ends it."""
        if self._client.status != "closed":
            self._future.cancel()
        self._forget()

    def _forget(self) -> None:
        if self._client.status != "closed":
            self._client.unsubscribe_topic(self._topic)
            self._future.release()


class LostFit:
    """A fit that could not be handed over."""

    doing = ""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def poll(self) -> Fitted:
        return Fitted(verdict="failed", reason=self._reason)

    def cancel(self) -> None:
        """There is nothing to take back."""


def work(asked: bytes) -> bytes:
    """On a worker of the cluster: fit, as the trainer would beside itself."""
    from distributed import get_worker

    worker: Any = get_worker()
    wanted = msgspec.json.decode(asked, type=Asked)
    settings = load()
    if differing := _differing(wanted, settings):
        reason = f"the settings of {worker.name} differ from the trainer's: {differing}"
        return msgspec.json.encode(Fitted(verdict="failed", reason=reason))
    log.info("fit begun", model=wanted.job.spec.name, task=wanted.topic)
    fit = Fit(msgspec.structs.replace(wanted.job, settings=settings.plain()))
    task = worker.state.tasks[worker.get_current_task()]
    told = ""
    while (fitted := fit.poll()) is None:
        if task.state != "executing":  # cancelled, or the trainer is gone
            fit.cancel()
            return msgspec.json.encode(Fitted(verdict="failed", reason="nobody waits for it"))
        if fit.doing != told:
            told = fit.doing
            worker.log_event(wanted.topic, told)
        time.sleep(POLL_SECONDS)
    return msgspec.json.encode(fitted)


def _differing(wanted: Asked, settings: Settings) -> str:
    pairs = [
        (name, getattr(wanted, name), getattr(settings, name))
        for name in ("topic_prefix", "artefact_url")
    ]
    return ", ".join(
        f"{name} is {here!r}, not {there!r}" for name, there, here in pairs if here != there
    )
