"""Fixtures and rules of the whole test run.

A test that needs the real broker asks for `broker`, `bootstrap`, `topic_prefix` or
`kafka_settings`, one that needs PostgreSQL for `postgres_url`, one that looks at pages for
`chromium`; their markers follow from that. Where the machine lacks one of them the tests are
skipped and the summary says how to get it; with CI set, a skip is a failure.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stream import tracing
from stream.settings import Settings
from tests import broker as brokers
from tests import browsers, postgres
from tests.broker import Broker
from tests.browsers import Launch

CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
MARKED_BY_FIXTURE = {"broker": "kafka", "postgres_url": "postgres", "chromium": "browser"}
COUNTER = itertools.count()

# On a slow machine every example may be late.
hypothesis.settings.register_profile("patient", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("patient")

# A developer's own settings must not reach the tests.
for name in [name for name in os.environ if name.startswith("DRIFTLINE_")]:
    del os.environ[name]
os.environ.pop("KAFKA_BOOTSTRAP_SERVERS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in MARKED_BY_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI set, a skip is a failure: an unnoticed one would leave a guarantee untested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if CI and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CI and terminalreporter.stats.get("skipped"):
        terminalreporter.section("skipped under CI", red=True)
        terminalreporter.write_line(
            "With CI set every test must run; the reasons are listed above."
        )


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The real broker, one for the whole run; tests keep apart by `topic_prefix`."""
    try:
        one = Broker(tmp_path_factory.mktemp("kafka"))
    except brokers.Unavailable as missing:
        pytest.skip(str(missing))
    with one:
        yield one


@pytest.fixture(scope="session")
def bootstrap(broker: Broker) -> str:
    return broker.bootstrap


@pytest.fixture
def topic_prefix(bootstrap: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """This test's own prefix of topics, groups and transactional ids; the topics go afterwards."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:6]
    prefix = f"test-{next(COUNTER)}-{digest}"
    yield prefix
    brokers.delete_topics(bootstrap, prefix)


@pytest.fixture
def kafka_settings(bootstrap: str, topic_prefix: str, tmp_path: Path) -> Settings:
    """One test's own topics (not made yet), registry, artefacts and console, on the real broker."""
    return Settings(
        bootstrap_servers=bootstrap,
        topic_prefix=topic_prefix,
        registry_url=f"sqlite:///{tmp_path}/registry.db",
        artefact_url=f"file:{tmp_path}/artefacts",
        console_url=f"sqlite:///{tmp_path}/console.db",
        session_timeout_seconds=6,
    )


@pytest.fixture(scope="module")  # no longer: its driver keeps an event loop in this thread
def chromium() -> Iterator[Launch]:
    """Opens a browser with nothing remembered: `chromium(width, scheme)` gives a page."""
    try:
        with browsers.launcher() as launch:
            yield launch
    except browsers.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    try:
        server = postgres.Server()
    except postgres.Unavailable as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """SQLAlchemy URL of a fresh, empty database of a real PostgreSQL."""
    return postgres_server.database(f"test_{next(COUNTER)}")


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Spans in memory, without the global provider, which can be set only once."""
    held = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(held))
    monkeypatch.setattr(tracing, "recording", lambda: True)
    monkeypatch.setattr(tracing, "tracer", lambda: provider.get_tracer("test"))
    return held
