"""The console's HTTP interface: JSON under /api, one stream, and the pages.

A handler finds, a view-model function shapes, msgspec writes; errors are one sentence as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, cast

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from consumers.console import charts, decided, views
from consumers.console.access import Access, Visitor
from consumers.console.actions import Actions, Asked, Unknown
from consumers.console.board import METRICS, Board, Entry
from consumers.console.feed import MAX_STREAMS, Feed
from consumers.console.guard import COOKIE, token_of
from consumers.console.handling import Handling, Said
from consumers.console.history import History
from consumers.console.inspector import LEAFED, Inspector
from consumers.console.pipeline import Pipeline, group_views
from consumers.console.pulse import Pulse, delay_quantile
from consumers.console.reader import Reader
from consumers.console.shelf import Shelf
from models.cards import Subject
from models.database import RegistryError, RegistryMisuse
from models.registry import Registry
from models.runs import Run
from stream.errors import DriftlineError, explained

STATIC: Final = Path(__file__).parent / "static"
PAGES: Final = ("/", "/models/{name:path}", "/alerts", "/pipeline", "/events", "/audit")
SESSION_SECONDS: Final = 12 * 3600

Window = Annotated[str | None, Query(max_length=200)]
Name = Annotated[str, Query(max_length=300)]


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the routes ask. Everything here is safe to share between threads."""

    history: History
    board: Board
    pulse: Pulse
    pipeline: Pipeline
    reader: Reader
    registry: Registry
    access: Access
    actions: Actions
    handling: Handling
    inspector: Inspector
    shelf: Shelf
    feed: Feed
    clock: Callable[[], int]


def build(parts: Parts) -> FastAPI:
    """The application, without its guard."""
    app = FastAPI(
        title="Driftline console",
        version="1",
        docs_url=None,  # would load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.parts = parts
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in (DriftlineError, RegistryError, OSError, ValueError):
        app.add_exception_handler(kind, _failed)
    app.include_router(api)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for path in PAGES:
        app.add_api_route(path, _page, include_in_schema=False)
    for path in ("/livez", "/readyz"):
        app.add_api_route(path, _door, include_in_schema=False)
    return app


api = APIRouter(prefix="/api")


def of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Here = Annotated[Parts, Depends(of)]


def told(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def known(parts: Parts, model: str) -> Entry:
    entry = parts.board.entry(model)
    if entry is None:
        raise HTTPException(404, f"no model {model[:100]!r} was heard of")
    return entry


# --- who asks -------------------------------------------------------------------------------------


@api.get("/session")
def session(request: Request, parts: Here) -> Response:
    """Who the page is talking for, and what they may do."""
    visitor: Visitor | None = request.scope.get("visitor")
    return told(
        {
            "name": visitor.name if visitor else None,
            "role": visitor.role if visitor else None,
            "signed_in": bool(_presented(request)) and visitor is not None,
            "now_ms": parts.clock(),
        }
    )


@api.post("/session")
async def sign_in(request: Request, parts: Here) -> Response:
    """Exchange a token for a cookie that no script can read."""
    token = (await _body(request, dict[str, str])).get("token", "").strip()
    visitor = await run_in_threadpool(parts.access.visitor, token) if token else None
    if visitor is None:
        raise HTTPException(401, "this token opens nothing: it is wrong, expired or revoked")
    answer = told({"name": visitor.name, "role": visitor.role, "signed_in": True})
    secure = request.headers.get("origin", "").startswith("https://")
    answer.set_cookie(
        COOKIE, token, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
    )
    return answer


@api.delete("/session")
def sign_out() -> Response:
    answer = told({})
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


# --- models ---------------------------------------------------------------------------------------


@api.get("/fleet")
def fleet(parts: Here) -> Response:
    """Every model in one line."""
    now = parts.clock()
    rows = [views.fleet_row(entry, now) for entry in parts.board.entries()]
    return told({"rows": rows, "now_ms": now, "reader": parts.reader.standing})


@api.get("/models/{name}")
def model(name: str, parts: Here) -> Response:
    """One model: its line, what is live, what can be chosen, open alerts, rates."""
    entry, now = known(parts, name), parts.clock()
    live = entry.lifecycle
    delays = parts.pulse.delays(name)
    return told(
        {
            "row": views.fleet_row(entry, now),
            "windows": views.windows(entry),
            "metrics": views.metrics(entry),
            "newest": views.champion_window(entry),
            "spec": live.spec if live else None,
            "generation": live.generation if live else None,
            "probation": live.probation if live else False,
            "alerts": sorted(entry.alerts.values(), key=lambda a: -a.opened_ms),
            "rate": parts.pulse.rate(name, now),
            "delay": {q: delay_quantile(delays, q / 100) for q in (50, 95)},
            "now_ms": now,
        }
    )


@api.get("/models/{name}/series")
def model_series(
    name: str,
    parts: Here,
    window: Window = None,
    metric: Window = None,
    start: int | None = None,
    end: int | None = None,
) -> Response:
    """A metric over time with its band, baseline, coverage and what happened meanwhile."""
    entry = known(parts, name)
    chosen = window or next(iter(views.windows(entry)), "")
    wanted = metric or next(iter(views.metrics(entry)), "")
    measured = parts.history.accuracies(name, chosen, start, end)
    line = charts.series(measured, wanted)
    happened = []
    if line.t:
        commands, alerts = parts.history.commands(name), parts.history.alerts(name)
        held = parts.history.held(name)
        happened = charts.markers(measured, commands, alerts, held, line.t[0], line.t[-1])
    better = METRICS.get(wanted, False)
    return told(
        {
            "window": chosen,
            "metric": wanted,
            "more_is_better": better,
            "series": line,
            "markers": happened,
        }
    )


@api.get("/models/{name}/segments")
def model_segments(name: str, parts: Here, window: Window = None) -> Response:
    """The champion's newest window by segment."""
    entry = known(parts, name)
    chosen = window or next(iter(views.windows(entry)), "")
    found: list[Any] = parts.history.newest(name, "segment", chosen)
    return told([m for m in found if m.version == entry.champion])


@api.get("/models/{name}/drift")
def model_drift(name: str, parts: Here, window: Window = None) -> Response:
    """Every signal against its reference, the most suspicious first."""
    entry = known(parts, name)
    chosen = window or next(iter(views.windows(entry)), "")
    found: list[Any] = parts.history.newest(name, "signal", chosen)
    newest = [m for m in found if m.version == entry.champion]
    features = entry.lifecycle.spec.feature_names if entry.lifecycle else ()
    worst = sorted(newest, key=lambda m: (-m.evidence, -m.psi))[: charts.MAX_SPARKS]
    past = parts.history.drifted(name, chosen, [m.signal for m in worst])
    return told({"window": chosen, "rows": charts.drift_rows(newest, past, features)})


@api.get("/models/{name}/signal")
def model_signal(name: str, signal: Name, parts: Here, window: Window = None) -> Response:
    """One signal: its reference and its live histogram on the same bins, and its past."""
    entry = known(parts, name)
    chosen = window or next(iter(views.windows(entry)), "")
    measured = parts.history.signal(name, chosen, signal)
    if measured is None:
        raise HTTPException(404, f"no signal {signal[:100]!r} was measured over {chosen}")
    profile = parts.shelf.profile(entry, measured.version)
    reference = profile.signal(signal) if profile else None
    return told(
        {
            "measured": measured,
            "kind": reference.kind if reference else None,
            "bins": charts.histogram(reference, measured.counts) if reference else [],
            "reference_rows": profile.rows if profile else None,
            "past": parts.history.drifted(name, chosen, [signal]),
        }
    )


@api.get("/models/{name}/versions")
def model_versions(name: str, parts: Here) -> Response:
    """All versions, who was live when, and what was decided, with each one's newest figures."""
    entry = known(parts, name)
    history = parts.registry.history(name)
    live = parts.registry.live(name)
    newest: list[Any] = parts.history.newest(name, "version")
    return told(
        {
            "live": live,
            "versions": parts.registry.versions(name)[::-1],
            "reigns": charts.reigns(history),
            "history": history[::-1][:100],
            "measured": newest,
            "paired": parts.history.newest(name, "pair"),
            "decisions": parts.registry.decisions(name, 50),
            "as_of_ms": max((m.end_ms for m in entry.accuracy.values()), default=None),
        }
    )


@api.get("/models/{name}/decisions")
def model_decisions(name: str, parts: Here) -> Response:
    """What evaluate wanted done and what it held back, with what came of it, newest first."""
    known(parts, name)
    found = decided.merged(
        parts.history.commands(name, decided.MOST),
        parts.history.held(name, decided.MOST),
        parts.registry.decisions(name, decided.MOST),
        parts.registry.runs(name, decided.MOST),
    )
    return told(found[: decided.MOST])


@api.get("/models/{name}/runs")
def model_runs(name: str, parts: Here, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
    """Training attempts, newest first."""
    return told(parts.registry.runs(name, limit))


@api.get("/runs/{a}/against/{b}")
def compare(a: int, b: int, parts: Here) -> Response:
    """What differs between two runs."""
    return told(parts.registry.compare_runs(a, b))


@api.get("/runs/{run_id}")
def run(run_id: int, parts: Here) -> Response:
    """One run whole, and what became of the version that it yielded."""
    found = _run(parts, run_id)
    return told({"run": found, "career": parts.registry.career(found)})


@api.get("/runs/{run_id}/card")
def card(run_id: int, parts: Here) -> Response:
    """The model card as one HTML file to keep: it is handed over, never opened among our pages."""
    from consumers.cards import page  # its plots take a second to import

    found = _run(parts, run_id)
    subject = Subject(found, parts.registry.spec_of(found), parts.registry.career(found))
    name = f"{found.model}-run-{run_id}.html"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(page(subject), media_type="text/html", headers=headers)


def _run(parts: Parts, run_id: int) -> Run:
    found = parts.registry.run(run_id)
    if found is None:
        raise HTTPException(404, f"no run {run_id}")
    return found


@api.post("/models/{name}/preview")
async def preview(name: str, request: Request, parts: Here) -> Response:
    """What an action would do; nothing is changed."""
    asked = await _body(request, Asked)
    try:
        return told(await run_in_threadpool(parts.actions.preview, name, asked))
    except Unknown as error:
        raise HTTPException(404, str(error)) from error


@api.post("/models/{name}/act")
async def act(name: str, request: Request, parts: Here) -> Response:
    """Promote, roll back, pin or unpin; every attempt leaves a row of the audit."""
    asked = await _body(request, Asked)
    visitor: Visitor = request.scope["visitor"]
    address = request.client.host if request.client else ""
    done = await run_in_threadpool(parts.actions.act, name, asked, visitor, address)
    if not visitor.operates:
        raise HTTPException(403, done.sentence)
    return told(done, 200 if done.applied else 409)


# --- everything else ------------------------------------------------------------------------------


@api.get("/alerts")
def alerts(
    parts: Here,
    model: Window = None,
    state: Window = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Problems, the newest first."""
    return told(parts.history.alerts(model, state, limit))


@api.post("/alerts/{alert_id}/handle")
async def handle_alert(alert_id: str, request: Request, parts: Here) -> Response:
    """Acknowledge, snooze, resolve or reopen; every attempt leaves a row of the audit."""
    said = await _body(request, Said)
    visitor: Visitor = request.scope["visitor"]
    address = request.client.host if request.client else ""
    try:
        done = await run_in_threadpool(parts.handling.handle, alert_id, said, visitor, address)
    except Unknown as error:
        raise HTTPException(404, str(error)) from error
    if not visitor.operates:
        raise HTTPException(403, done.sentence)
    return told(done, 200 if done.applied else 409)


@api.get("/pipeline")
def pipeline(parts: Here) -> Response:
    """How the stages keep up."""
    now = parts.clock()
    samples = list(parts.pipeline.samples)
    delays = parts.pulse.delays()
    return told(
        {
            "now_ms": now,
            "problem": parts.pipeline.problem,
            "reader": parts.reader.standing,
            "refused": parts.reader.refused,
            "groups": group_views(samples),
            "dead_letters": samples[-1].dead_letters if samples else {},
            "sampled_ms": samples[-1].at_ms if samples else None,
            "rate": parts.pulse.total(now),
            "progress": parts.pulse.progress(),
            "replays": parts.pipeline.replays,
            "delay": {q: delay_quantile(delays, q / 100) for q in (50, 95)},
            "delays": delays,
        }
    )


@api.get("/events")
def events(id: Name, parts: Here) -> Response:  # noqa: A002  what a person calls it
    """Everything that lies under one prediction id."""
    return told(parts.inspector.search(id))


@api.get("/events/newest")
def newest_events(
    parts: Here,
    entity: Window = "predictions",
    model: Window = None,
    limit: Annotated[int, Query(ge=1, le=50)] = 20,
) -> Response:
    """The newest records of a topic that people write to, or of its dead letters."""
    if entity not in LEAFED:
        raise HTTPException(422, f"entity: one of {', '.join(LEAFED)}")
    return told(parts.inspector.newest(entity, model, limit))


@api.get("/audit")
def audit(parts: Here) -> Response:
    """What was asked of the console, newest first."""
    return told(parts.access.audit())


def admit_stream(parts: Here) -> None:
    if parts.feed.open >= MAX_STREAMS:
        raise HTTPException(503, f"{MAX_STREAMS} pages are open already")


@api.get("/stream", response_class=EventSourceResponse, dependencies=[Depends(admit_stream)])
async def stream(
    request: Request,
    parts: Here,
    model: str | None = None,
    every: Annotated[float, Query(ge=0.5, le=60)] = 1.0,
    last: Annotated[str, Query(max_length=100)] = "",
) -> AsyncIterator[ServerSentEvent]:
    """Rows as they change; a page that lost its connection goes on where it was."""
    token = _presented(request)

    def admitted() -> bool:
        return not token or parts.access.visitor(token) is not None

    resumed = request.headers.get("last-event-id", last)
    async for event in parts.feed.events(model, every, resumed, admitted):
        yield event


# --- pages, doors, errors -------------------------------------------------------------------------


def _page() -> Response:
    return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")


def _door(request: Request, parts: Here) -> Response:
    """Alive when it answers; ready when it follows the topics."""
    ready = parts.reader.standing.state == "following"
    fine = request.url.path == "/livez" or ready
    return told({"ok": fine}, 200 if fine else 503)


def _presented(request: Request) -> str:
    return token_of(dict(request.headers.items()))[0]


async def _body(request: Request, kind: type[Any]) -> Any:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "send application/json")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.DecodeError as error:
        raise HTTPException(422, str(error)) from error


def _invalid(_request: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    return told({"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, 422)


def _http(_request: Request, error: Exception) -> Response:
    known_error = cast(HTTPException, error)
    return told({"error": str(known_error.detail)}, known_error.status_code)


def _failed(_request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, RegistryMisuse) else 503
    return told({"error": explained(error)}, status)
