"""OpenTelemetry: off and free by default; with it, an alert's sending links to what it counted."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from stream import tracing
from tests.patience import PATIENCE_SECONDS
from tests.receivers import Receiver, Topic, alert, answer, ok
from tests.test_sinks import deliver, webhook

ONE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
TWO = "00-" + "3" * 32 + "-" + "4" * 16 + "-01"


def test_an_attempt_is_a_span_that_links_to_what_the_alert_counted(
    exporter: InMemorySpanExporter,
) -> None:
    """A few links, none to what is no trace; who is called is told which span calls."""
    topic = Topic()
    topic.add(alert(evidence={"traces": [ONE, "hostile", TWO]}))
    with Receiver(answer(503, b"no"), ok) as receiver:
        deliver(webhook(receiver.url), topic)
    failed, taken = exporter.get_finished_spans()
    for span, posted in zip((failed, taken), receiver.posted, strict=True):
        linked = [f"{link.context.trace_id:032x}" for link in span.links]
        assert linked == ["1" * 32, "3" * 32]
        ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
        assert posted.headers["traceparent"].startswith(f"00-{ids}-")
        assert dict(span.attributes or {}).items() >= {
            ("driftline.sink", "one"),
            ("driftline.model", "churn"),
            ("driftline.alert.event.id", "alert-0-0"),
        }
    assert (failed.attributes or {})["error.type"] == "status"
    assert (failed.status.status_code, failed.status.description) == (
        *(StatusCode.ERROR, "status 503: no"),
    )
    assert taken.status.status_code is StatusCode.UNSET


def test_links_are_few_whatever_the_evidence_holds(exporter: InMemorySpanExporter) -> None:
    topic = Topic()
    topic.add(
        alert(0, evidence={"traces": [ONE] * 1000}),
        alert(1, evidence={"traces": "no list"}),
        alert(2, evidence={"traces": [{"a": 1}, 7, None]}),
    )
    with Receiver(ok) as receiver:
        deliver(webhook(receiver.url), topic)
    assert [len(span.links) for span in exporter.get_finished_spans()] == [3, 0, 0]


def test_without_an_exporter_nothing_is_traced_and_no_header_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.configure("test")()
    topic = Topic()
    topic.add(alert(evidence={"traces": [ONE]}))
    with Receiver(ok) as receiver:
        deliver(webhook(receiver.url), topic)
    assert "traceparent" not in receiver.posted[0].headers
    with tracing.tracer().start_as_current_span("nothing") as span:
        assert not span.is_recording()


def test_without_the_extra_an_exporter_that_is_asked_for_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.reset_defaults()  # another test may have asked for errors alone
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(tracing, "EXTRA", "opentelemetry.exporter.nothing.of.the.kind")
    tracing.configure("test")()
    assert "driftline[otel]" in "".join(capsys.readouterr())
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    tracing.configure("test")()
    assert not "".join(capsys.readouterr())


PATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "600", "OTEL_BSP_EXPORT_TIMEOUT": "600000"}
EXPORTING = """
import sys, time
from stream import tracing
tracing.END_SECONDS = float(sys.argv[1])
end = tracing.configure("test")
with tracing.tracer().start_as_current_span("one"):
    print(tracing.carried()["traceparent"])
begun = time.monotonic()
end()
print(time.monotonic() - begun < 20)
"""


@pytest.mark.parametrize("answers", [True, False])
def test_spans_are_exported_by_the_variables_of_opentelemetry(answers: bool) -> None:
    """To a collector by OTLP; one that never answers does not hold up the end."""
    came: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            if not answers:
                time.sleep(600)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    done = subprocess.run(
        [sys.executable, "-c", EXPORTING, str(PATIENCE_SECONDS if answers else 2)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={"PATH": "/usr/bin:/bin", "OTEL_EXPORTER_OTLP_ENDPOINT": url, **PATIENT},
        timeout=2 * PATIENCE_SECONDS,
    )
    while not came:  # it may have ended before it was heard
        time.sleep(0.05)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    traceparent, in_time = done.stdout.splitlines()
    assert in_time == "True"
    [(path, body)] = came
    assert path == "/v1/traces"
    assert bytes.fromhex(traceparent.split("-")[1]) in body
    assert b"driftline" in body


def test_no_test_has_set_the_provider_of_the_whole_process() -> None:
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
