"""Every service of the loop as its own principal, on a broker with rights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AclBindingFilter, AdminClient

from consumers import acls, topics_admin
from consumers.acls import TABLE, Acl
from consumers.keymaking import make
from consumers.loop import RangeReader
from consumers.places import Delivered
from consumers.producing import Publisher
from stream.settings import Settings
from stream.supervising import environment
from stream.topics import STAGES, Names
from tests.kafka.loop import HERE
from tests.kafka.traffic import SPEC
from tests.patience import PATIENCE_SECONDS
from tests.secured import ROOT, Secured

PREFIX = "guarded"
COMMANDS: dict[str, list[str]] = {stage: ["stream.worker", stage] for stage in STAGES}
COMMANDS["trainer"] = ["consumers", "trainer"]
COMMANDS["alerts"] = ["consumers", "alerts"]
SIGNERS = ("evaluate", "trainer", "operator")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256")


def principal(service: str) -> str:
    return f"{PREFIX}-{service}"


class Guarded:
    """The broker with the topics and rights of one prefix, and its services."""

    def __init__(self, folder: Path) -> None:
        users = {principal(s): MECHANISMS[n % 2] for n, s in enumerate(TABLE)}
        self.secured = Secured(folder / "broker", users)
        self.folder = folder
        self.more: dict[str, Any] = {
            "topic_prefix": PREFIX,
            "partitions": 2,
            "registry_url": f"sqlite:///{folder}/registry.db",
            "artefact_url": f"file:{folder}/artefacts",
            "log_format": "json",
            "command_keys": (f"{folder}/evaluate.key.pub",),
            "lifecycle_keys": (f"{folder}/trainer.key.pub", f"{folder}/operator.key.pub"),
        }
        for service in SIGNERS:
            make(folder / f"{service}.key", "ed25519")

    def settings(self, service: str) -> Settings:
        """Of a service: its own password, and its own key if it signs."""
        name = ROOT if service == ROOT else principal(service)
        signing = {"signing_key_file": f"{self.folder}/{service}.key"} if service in SIGNERS else {}
        return self.secured.settings(name, **self.more, **signing)

    def prepare(self) -> None:
        """Rights by root, topics by the admin."""
        acls.apply(self.settings(ROOT), acls.listing(Names(PREFIX)))
        rows = topics_admin.apply(self.settings("admin"))
        assert {row.state for row in rows} == {"made"}, rows

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """Its log is `<service>.log`, the newest start's alone."""
        with (self.folder / f"{service}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *COMMANDS[service]],
                cwd=self.folder,
                env={**environment(self.settings(service), 0), **HERE},
                stdout=log,
                stderr=log,
            )

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()

    def publish(self, service: str, entity: str, key: str, *values: bytes) -> None:
        publisher = Publisher(self.settings(service), **{"message.timeout.ms": 120_000})
        for value in values:
            publisher.send(entity, key.encode(), value)
        publisher.flush()

    def send(self, entity: str, events: Mapping[str, Mapping[str, Any]]) -> None:
        """What producers send of the model of `tests.kafka.traffic`, by prediction id."""
        publisher = Publisher(self.settings("producer"))
        for id_, fields in events.items():
            value = {"prediction_id": id_, "model": SPEC.name, **fields}
            publisher.send(entity, id_.encode(), json.dumps(value).encode())
        publisher.flush()

    def read(self, entity: str) -> list[Delivered]:
        with RangeReader(self.settings(ROOT)) as reader:
            return list(reader.read(entity, reader.bounds(entity)))

    @contextmanager
    def without(self, acl: Acl) -> Iterator[None]:
        """This right is taken away for a while."""
        admin = AdminClient(self.settings(ROOT).client())
        bindings = acls.bindings([acl])
        wanted = [
            AclBindingFilter(
                b.restype,
                b.name,
                b.resource_pattern_type,
                b.principal,
                b.host,
                b.operation,
                b.permission_type,
            )
            for b in bindings
        ]
        for answer in admin.delete_acls(wanted).values():
            assert len(answer.result(PATIENCE_SECONDS)) == 1
        try:
            yield
        finally:
            acls.apply(self.settings(ROOT), [acl])


def until(what: Callable[[], Any], told: Callable[[], str]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, told()[-6000:]
        time.sleep(0.3)
    return found
