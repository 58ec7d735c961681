"""A local server that speaks a schema registry's REST API, and what it knows."""

from __future__ import annotations

import io
import json
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

import fastavro

from stream.core.processor import Record

AT_MS = 1_700_000_000_000
FEATURES = {
    "type": "record",
    "name": "Features",
    "namespace": "acme",
    "fields": [{"name": "age", "type": "double"}, {"name": "plan", "type": ["null", "string"]}],
}
PREDICTION = {
    "type": "record",
    "name": "Prediction",
    "namespace": "acme",
    "fields": [
        {"name": "prediction_id", "type": "string"},
        {"name": "model", "type": "string"},
        {"name": "version", "type": "int"},
        {"name": "output", "type": "double"},
        {"name": "features", "type": "acme.Features"},
    ],
}
FEEDBACK = {
    "type": "record",
    "name": "Feedback",
    "fields": [{"name": name, "type": "string"} for name in ("prediction_id", "model", "label")],
}
AGE = {"subject": "acme.Features", "version": 3, "name": "acme.Features"}


class SchemaRegistry:
    """It knows predictions (7, which refer to features), feedback (8) and any JSON (9).

    Attributes:
        answers: path -> status and body; what is not there it does not know.
        asked: paths.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.authorizations: set[str | None] = set()
        self.answers: dict[str, tuple[int, bytes]] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = registry.answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.knows(7, PREDICTION, references=[AGE])
        referred = {**AGE, "id": 6, "schema": json.dumps(FEATURES)}
        self.answers["/subjects/acme.Features/versions/3"] = 200, json.dumps(referred).encode()
        self.knows(8, FEEDBACK)
        self.knows(9, {"type": "object"}, "JSON")

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        bare = path.partition("?")[0]
        self.asked.append(bare)
        self.authorizations.add(authorization)
        unknown = json.dumps({"error_code": 40403, "message": "Schema not found"}).encode()
        return self.answers.get(bare, (404, unknown))

    def knows(self, id_: int, schema: object, kind: str = "AVRO", **more: object) -> None:
        told: dict[str, object] = {"schema": json.dumps(schema), **more}
        if kind != "AVRO":  # as a registry does: Avro goes without saying
            told["schemaType"] = kind
        self.answers[f"/schemas/ids/{id_}"] = 200, json.dumps(told).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def framed(id_: int, value: bytes, offset: int = 0) -> Record:
    return Record(offset, AT_MS, b"k", struct.pack(">bI", 0, id_) + value)


def avro(schema: Any, value: object) -> bytes:
    named: dict[str, Any] = {}
    fastavro.parse_schema(FEATURES, named_schemas=named)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema, named_schemas=named), value)
    return stream.getvalue()


def prediction(number: int, age: float = 41.0) -> dict[str, Any]:
    return {
        "prediction_id": f"r{number}",
        "model": "fraud",
        "version": 2,
        "output": 0.25,
        "features": {"age": age, "plan": None},
    }
