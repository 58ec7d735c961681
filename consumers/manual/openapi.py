"""The console's API as an OpenAPI document, from its routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from consumers.console.routes import api


def document() -> dict[str, Any]:
    """Without a console that runs: the routes alone."""
    app = FastAPI(title="Driftline console", version="1", docs_url=None, redoc_url=None)
    app.include_router(api)
    document: dict[str, Any] = _by_3_1(app.openapi())
    return document


def _by_3_1(value: Any) -> Any:
    """FastAPI describes the items of a stream of events, which OpenAPI only knows from 3.2 on."""
    if isinstance(value, dict):
        if "itemSchema" in value:
            return {"schema": {"type": "string"}}
        return {name: _by_3_1(item) for name, item in value.items()}
    return [_by_3_1(item) for item in value] if isinstance(value, list) else value
