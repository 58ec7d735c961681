"""A serving system that is watched without a change in it: what goes in and comes out is reported.

    app.add_middleware(Watching, reporter=reporter, path="/predict", output="leaves")

    @watched(reporter)
    def predict(features: dict[str, object]) -> float: ...

The first is for any ASGI application (FastAPI, Starlette, Litestar ...), the second for functions,
async ones too. Answers and exceptions go their way unchanged: an answer is there before anything is
reported, and what cannot be reported is counted (`Reporter.counts`), never raised.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

import msgspec

from consumers.reporter import Reporter

HEADER: Final = b"x-prediction-id"
MOST_BYTES: Final = 1 << 20  # of a request or an answer; larger ones are not reported

P = ParamSpec("P")
R = TypeVar("R")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
#: A key of a JSON object, or what makes one value of another; None: the value itself.
Part = str | Callable[[Any], Any] | None

_newest: ContextVar[str] = ContextVar("prediction_id", default="")


def prediction_id() -> str:
    """Of the newest prediction that a `watched` function reported in this thread or task, which
    feedback is to name; empty: there was none."""
    return _newest.get()


def watched(
    reporter: Reporter,
    *,
    features: Callable[..., Mapping[str, object]] | None = None,
    output: Part = None,
    named: Callable[..., str] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Report each call of a function as a prediction, once it has returned.

    Args:
        features: makes them of the function's arguments; by default its only argument, a mapping,
            or its keyword arguments.
        output: the part of what it returns that is the model's output; by default all of it.
        named: makes the prediction's id of the arguments; by default a new one.
    """

    def report(answer: object, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        try:
            id_ = named(*args, **kwargs) if named else uuid.uuid4().hex
            given = (features or _given)(*args, **kwargs)
            _newest.set(reporter.prediction(given, _part(output, answer), prediction_id=id_))
        except Exception as error:  # whatever it is, the caller is not to hear of it
            reporter.refuse(f"{type(error).__name__}: {error}")

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def later(*args: P.args, **kwargs: P.kwargs) -> Any:
                answer = await function(*args, **kwargs)
                report(answer, args, kwargs)
                return answer

            return later  # type: ignore[return-value]  # an R that is awaited

        @functools.wraps(function)
        def now(*args: P.args, **kwargs: P.kwargs) -> R:
            answer = function(*args, **kwargs)
            report(answer, args, kwargs)
            return answer

        return now

    return wrap


def _given(*args: object, **kwargs: object) -> Mapping[str, object]:
    if len(args) == 1 and not kwargs and isinstance(args[0], Mapping):
        return args[0]
    if args:
        raise TypeError("which of these are the features? say so by features=")
    return kwargs


class Watching:
    """ASGI middleware: each POST to one path that is answered with 200 is a prediction.

    The answer gets a header `x-prediction-id`, which feedback is to name; a client that sends one
    with its request chooses it. A `traceparent` of the request is handed on.

    Args:
        path: of the endpoint that predicts.
        features: the part of the request's JSON that they are; by default all of it.
        output: the part of the answer's JSON that is the model's output; by default all of it.
    """

    def __init__(
        self,
        app: App,
        reporter: Reporter,
        *,
        path: str,
        features: Part = None,
        output: Part = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._app = app
        self._reporter = reporter
        self._path = path
        self._features = features
        self._output = output
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = scope["type"] == "http" and scope["method"] == "POST"
        if not wanted or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope["headers"], self._most_bytes)
        await self._app(scope, exchange.heard(receive), exchange.said(send))
        if exchange.status == 200:
            self._report(exchange)

    def _report(self, exchange: _Exchange) -> None:
        try:
            asked, answer = map(msgspec.json.decode, (exchange.request, exchange.answer))
            self._reporter.prediction(
                _part(self._features, asked),
                _part(self._output, answer),
                prediction_id=exchange.id,
                traceparent=exchange.header(b"traceparent"),
            )
        except Exception as error:  # whatever it is, the server is not to hear of it
            self._reporter.refuse(f"{type(error).__name__}: {error}")


class _Exchange:
    """A request and its answer, noted as they pass by."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], most_bytes: int) -> None:
        self._headers = dict(headers)
        self._most_bytes = most_bytes
        self.id = self.header(HEADER) or uuid.uuid4().hex
        self.request, self.answer = bytearray(), bytearray()
        self.status = 0

    def header(self, name: bytes) -> str | None:
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def heard(self, receive: Receive) -> Receive:
        async def noted() -> Message:
            message = await receive()
            self._note(self.request, message)
            return message

        return noted

    def said(self, send: Send) -> Send:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                headers = [*message.get("headers", ()), (HEADER, self.id.encode("latin-1"))]
                message = {**message, "headers": headers}
            else:
                self._note(self.answer, message)
            await send(message)

        return noted

    def _note(self, noted: bytearray, message: Message) -> None:
        """What is too large is cut, and so no JSON any more."""
        noted += message.get("body", b"")[: self._most_bytes - len(noted)]


def _part(part: Part, whole: Any) -> Any:
    if part is None:
        return whole
    return whole[part] if isinstance(part, str) else part(whole)
