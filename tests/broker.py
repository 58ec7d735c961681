"""A real Apache Kafka without Docker: one JVM on loopback.

    with Broker(Path("/tmp/somewhere")) as broker:
        create(broker.bootstrap, {"greetings": 4})

Its jars come by package name through Maven, once, into `.cache/kafka`. Tests use the fixtures of
`tests/conftest.py`; benchmarks use this module directly.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.patience import PATIENCE_SECONDS
from tests.topics import (
    Seen,
    Sent,
    create,
    delete_topics,
    make_topics,
    produce,
    quiet_client,
    read_all,
)

__all__ = [
    "Broker",
    "Seen",
    "Sent",
    "Unavailable",
    "create",
    "delete_topics",
    "free_ports",
    "jars",
    "make_topics",
    "produce",
    "quiet_client",
    "read_all",
]

ROOT = Path(__file__).parent.parent
POM = ROOT / "scripts" / "kafka-pom.xml"
CACHE = ROOT / ".cache" / "kafka"
HOW_TO_GET = (
    "install a JDK 17 or newer and Maven (Debian: apt-get install default-jdk-headless maven)"
)
CLUSTER_ID = "ZHJpZnRsaW5lLXRlc3RzIQ"  # 16 bytes in base64; one that begins with a dash is refused

# Small and quick to notice the dead: tests kill clients and wait for what follows.
PROPERTIES = """
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={directory}/data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=2000
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


class Unavailable(Exception):
    """The machine lacks what the broker needs; the message says how to get it."""


def jars() -> Path:
    """The folder of Kafka's jars; fetched by Maven the first time, and when the pom changes.

    Raises:
        Unavailable: there is no JDK or no Maven, or Maven failed.
    """
    for command in ("java", "mvn"):
        if shutil.which(command) is None:
            raise Unavailable(f"the real broker needs {command}, which is missing: {HOW_TO_GET}")
    libs = CACHE / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test runs may want it at once
        if not libs.exists():
            _fetch(libs)
    return libs


def _fetch(libs: Path) -> None:
    partial = libs.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        str(POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise Unavailable(
            f"Maven could not fetch Kafka's jars: {(done.stdout + done.stderr)[-2000:]}"
        )
    partial.rename(libs)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Broker:
    """One broker that is its own controller, in its own process.

    Attributes:
        bootstrap: `127.0.0.1:<port>`, the same across restarts.
    """

    def __init__(
        self,
        directory: Path,
        *,
        heap: str = "1g",
        optimised: bool = False,
        properties: str = "",
        users: Sequence[str] = (),
        client: Mapping[str, object] | None = None,
        ports: tuple[int, int] | None = None,
        voters: Sequence[str] = ("--standalone",),
    ) -> None:
        """
        Args:
            optimised: by the JVM's second compiler, as in production; it takes half a core for
                minutes, which is more than a test run gets back.
            properties: further ones, which win; with {port}, {controller_port}, {directory}.
            users: of SCRAM, as StorageTool's --add-scram takes them.
            client: what a client needs beside the address to be let in.
            ports: of broker and controller, where others must know them before.
            voters: as StorageTool is told who elects the controller.
        """
        self.directory = directory
        self._client = dict(client or {})
        port, controller_port = ports or free_ports(2)
        self.bootstrap = f"127.0.0.1:{port}"
        self._jvm = [f"-Xmx{heap}", *([] if optimised else ["-XX:TieredStopAtLevel=1"])]
        self._libs = jars()
        self._process: subprocess.Popen[bytes] | None = None
        self._config = directory / "server.properties"
        self._log = directory / "broker.log"
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            (PROPERTIES + properties).format(
                port=port, controller_port=controller_port, directory=directory
            )
        )
        format_log_dirs = ["format", *voters, "-t", CLUSTER_ID, "-c", str(self._config)]
        for user in users:
            format_log_dirs += ["--add-scram", user]
        subprocess.run(
            self._java("kafka.tools.StorageTool", *format_log_dirs),
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )

    def start(self) -> None:
        """Start and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        assert self._process is not None, "the broker is not running"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        """An orderly end; the log stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stand still, as a long garbage collection or a cut network would make it."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on, and wait until clients are told who the controller is.

        A broker that stood still longer than its session is fenced for a moment; librdkafka asks
        for the controller once, and a client that is told "none" waits for a minute.
        """
        self._send(signal.SIGCONT)
        self.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _java(self, main: str, *arguments: str) -> list[str]:
        # The kernel ends the JVM when this process dies, however it dies.
        orphanless = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [
            *orphanless,
            "java",
            *self._jvm,
            quiet,
            "-cp",
            f"{self._libs}/*",
            main,
            *arguments,
        ]

    def _answers(self) -> bool:
        try:
            client = AdminClient(quiet_client(self.bootstrap, **self._client))
            return bool(client.list_topics(timeout=1).controller_id >= 0)
        except KafkaException:
            return False

    def _send(self, number: int) -> None:
        assert self._process is not None, "the broker is not running"
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _prepare() -> None:
    """Fetch the jars before the tests want them, or say what is missing."""
    try:
        print(jars().relative_to(ROOT))
    except Unavailable as missing:
        print(missing)


if __name__ == "__main__":
    _prepare()
