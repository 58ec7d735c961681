"""What is wrapped serves as before, whatever becomes of what is reported."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from consumers.reporter import Counts, Reporter
from consumers.wrapping import Watching, prediction_id, watched
from stream.settings import Settings

TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


class Noted(Reporter):
    """Also remembers what it was told; nobody is at its broker."""

    def __init__(self) -> None:
        nowhere = Settings(bootstrap_servers="127.0.0.1:1")
        super().__init__("m", version=1, settings=nowhere, flush_seconds=0)
        self.told: list[tuple[Any, Any, str | None, str | None]] = []

    def prediction(self, features: Mapping[str, object], output: object, **more: Any) -> str:
        self.told.append((features, output, more.get("prediction_id"), more.get("traceparent")))
        return super().prediction(features, output, **more)


@pytest.fixture
def reporter() -> Iterator[Noted]:
    with Noted() as made:
        yield made


# --- functions ------------------------------------------------------------------------------------


def test_a_function_is_reported_and_its_caller_can_name_the_prediction(reporter: Noted) -> None:
    @watched(reporter)
    def predict(features: dict[str, float]) -> float:
        return features["age"] / 100

    assert predict({"age": 41}) == 0.41
    assert predict.__name__ == "predict"
    assert reporter.told == [({"age": 41}, 0.41, prediction_id(), None)]


def test_a_coroutine_is_reported_when_it_has_an_answer(reporter: Noted) -> None:
    @watched(reporter, output="p", named=lambda **features: f"order-{features['age']}")
    async def predict(*, age: float) -> dict[str, float]:
        await asyncio.sleep(0)
        return {"p": age / 100}

    async def play() -> str:
        assert await predict(age=41) == {"p": 0.41}
        return prediction_id()

    assert asyncio.run(play()) == "order-41"
    assert reporter.told == [({"age": 41}, 0.41, "order-41", None)]


def test_an_exception_of_the_function_is_its_callers_and_no_prediction(reporter: Noted) -> None:
    @watched(reporter)
    def predict(features: dict[str, float]) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        predict({})
    assert reporter.counts == Counts()


def test_what_cannot_be_reported_is_counted_and_its_answer_given(reporter: Noted) -> None:
    """Arguments that are no features, features or parts that cannot be had, no number at all."""

    def answer(*_: object) -> Any:
        return {"p": object()}

    for how in (
        watched(reporter),
        watched(reporter, features=lambda *_: 1 / 0),  # type: ignore[arg-type]
        watched(reporter, features=lambda *_: {}, output="absent"),
        watched(reporter, features=lambda *_: {}, output="p"),
        watched(reporter, features=lambda *_: {}, named=lambda *_: 1 / 0),  # type: ignore[arg-type]
    ):
        assert set(how(answer)(1, 2)) == {"p"}
    assert reporter.counts == Counts(reported=5, refused=5)


# --- applications ---------------------------------------------------------------------------------


async def predict(request: Request) -> Response:
    asked = await request.json()
    if asked.get("age") is None:
        return JSONResponse({"error": "no age"}, 422)
    return JSONResponse({"model": "m", "p": asked["age"] / 100})


async def breaks(_: Request) -> Response:
    raise ZeroDivisionError


async def streams(_: Request) -> Response:
    return StreamingResponse(iter(["[0.25,", "0.75]"]), media_type="application/json")


ROUTES = [
    *(Route(f"/{name}", predict, methods=["POST", "PUT"]) for name in ("predict", "other")),
    Route("/breaks", breaks, methods=["POST"]),
    Route("/streams", streams, methods=["POST"]),
]


def client(reporter: Reporter, path: str = "/predict", **more: Any) -> TestClient:
    app = Starlette(routes=ROUTES)
    app.add_middleware(Watching, reporter=reporter, path=path, **more)
    return TestClient(app)


def test_a_post_that_is_answered_is_a_prediction(reporter: Noted) -> None:
    with client(reporter, output="p") as browser:
        answer = browser.post("/predict", json={"age": 41}, headers={"traceparent": TRACE})
    assert answer.json() == {"model": "m", "p": 0.41}
    assert reporter.told == [({"age": 41}, 0.41, answer.headers["x-prediction-id"], TRACE)]


def test_a_client_may_name_its_prediction(reporter: Noted) -> None:
    with client(reporter, features=lambda asked: {"years": asked["age"]}, output="p") as browser:
        told = {"x-prediction-id": "order-7"}
        assert browser.post("/predict", json={"age": 41}, headers=told).headers.items() >= (
            told.items()
        )
    assert reporter.told == [({"years": 41}, 0.41, "order-7", None)]


def test_other_paths_methods_and_answers_are_no_predictions(reporter: Noted) -> None:
    with client(reporter, output="p") as browser:
        assert "x-prediction-id" not in browser.post("/other", json={"age": 41}).headers
        assert browser.put("/predict", json={"age": 41}).status_code == 200
        assert browser.post("/predict", json={}).status_code == 422
    with client(reporter, "/breaks") as browser, pytest.raises(ZeroDivisionError):
        browser.post("/breaks", json={})
    assert reporter.counts == Counts()


def test_an_answer_in_pieces_is_one(reporter: Noted) -> None:
    with client(reporter, "/streams") as browser:
        assert browser.post("/streams", json={"age": 41}).json() == [0.25, 0.75]
    assert [output for _, output, *_ in reporter.told] == [[0.25, 0.75]]


@pytest.mark.parametrize(
    "how",
    [
        {"output": "absent"},
        {"most_bytes": 12, "output": "p"},
        {"features": "age"},
        {"output": "model"},
    ],
)
def test_what_cannot_be_reported_is_counted_and_served(
    reporter: Noted, how: dict[str, Any]
) -> None:
    """A part that is not there, a body too large, no features, no output."""
    with client(reporter, **how) as browser:
        assert browser.post("/predict", json={"age": 41}).json()["p"] == 0.41
    assert reporter.counts == Counts(reported=1, refused=1)


def test_a_broker_that_is_away_and_a_full_queue_hold_up_no_answer() -> None:
    nowhere = Settings(bootstrap_servers="127.0.0.1:1")
    options: dict[str, Any] = {"queue_events": 10, "flush_seconds": 0}
    with (
        Reporter("m", version=1, settings=nowhere, **options) as reporter,
        client(reporter, output="p") as browser,
    ):
        began = time.monotonic()
        for _ in range(30):
            assert browser.post("/predict", json={"age": 41}).status_code == 200
        assert time.monotonic() - began < 90
        assert reporter.counts == Counts(reported=30, dropped=20)
