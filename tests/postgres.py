"""A real PostgreSQL on loopback: Debian's package, started by the tests as an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from tests.broker import free_ports
from tests.patience import PATIENCE_SECONDS

HOW_TO_GET = "run scripts/prepare-system as root (Debian: apt-get install postgresql)"
USERS = (
    "postgres",
    "nobody",
)  # the server refuses to run as root, so root starts it as one of them
QUICK = (
    "-c fsync=off -c shared_buffers=32MB -c max_connections=50"  # it lives as long as one test run
)


class Unavailable(Exception):
    """The machine has no PostgreSQL; the message says how to get it."""


def programs() -> Path:
    """Where `initdb` and `pg_ctl` lie, the newest version.

    Raises:
        Unavailable: PostgreSQL is not installed.
    """
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        return Path(on_path).resolve().parent
    # Debian keeps the server's programs out of the PATH, a folder for each version.
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    if not found:
        raise Unavailable(f"the PostgreSQL tests need its server, which is missing: {HOW_TO_GET}")
    return max(found, key=lambda path: float(path.parent.name))


class Server:
    """One server in a directory of its own, with trust for whoever reaches it on loopback."""

    def __init__(self) -> None:
        self._programs = programs()
        self._user = _unprivileged()
        # Not below pytest's directory, which only the user who runs the tests may enter.
        self._directory = Path(tempfile.mkdtemp(prefix="driftline-postgres-"))
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        [self.port] = free_ports(1)

    def start(self) -> None:
        data = self._directory / "data"
        self._run(
            "initdb",
            "-D",
            str(data),
            "-U",
            "driftline",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        )
        self.launch()

    def launch(self) -> None:
        """Start the server on the data that is there."""
        data = self._directory / "data"
        where = f"-c listen_addresses=127.0.0.1 -c port={self.port}"
        options = f"{where} -c unix_socket_directories='' {QUICK}"
        log = str(self._directory / "log")
        self._run("pg_ctl", "-D", str(data), "-l", log, "-w", "-t", "60", "-o", options, "start")

    def halt(self) -> None:
        """End at once, as a power cut would; the data stays."""
        self._run("pg_ctl", "-D", str(self._directory / "data"), "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self._directory, ignore_errors=True)

    def database(self, name: str) -> str:
        """Create an empty database; its SQLAlchemy URL."""
        where = f"host=127.0.0.1 port={self.port} user=driftline dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(
                psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name))
            )
        return f"postgresql+psycopg://driftline@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        """As the superuser, whatever other sessions are held to."""
        where = f"host=127.0.0.1 port={self.port} user=driftline dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute("set default_transaction_read_only = off")
            connection.execute(statement.encode())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_SECONDS,
            user=self._user,
            cwd=self._directory,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stdout[-2000:]}")


def _unprivileged() -> str | None:
    """Whom to run as; None: as this process."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in USERS if user in known)
