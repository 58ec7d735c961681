"""A scikit-learn model behind FastAPI; the lines with `reporter` are all that watching takes.

KAFKA_BOOTSTRAP_SERVERS=localhost:9092 uvicorn serving:app --app-dir examples/python
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.linear_model import LogisticRegression

from consumers.reporter import Reporter

reporter = Reporter("loyalty", version=1)


@asynccontextmanager
async def watched(_: FastAPI) -> AsyncIterator[None]:
    async with reporter:
        yield


class Customer(BaseModel):
    age: float
    visits: float


class Outcome(BaseModel):
    prediction_id: str
    label: str


def trained() -> LogisticRegression:
    """Stands for a model of your own."""
    random = np.random.default_rng(7)
    rows = random.uniform([18, 0], [80, 30], size=(500, 2))
    return LogisticRegression().fit(rows, rows[:, 0] / 80 + random.normal(0, 0.2, 500) > 0.6)


app = FastAPI(lifespan=watched)
model = trained()


@app.post("/predict")
def predict(customer: Customer) -> dict[str, object]:
    leaves = model.predict_proba([[customer.age, customer.visits]])[0, 1]
    prediction_id = reporter.prediction(customer.model_dump(), leaves)
    return {"prediction_id": prediction_id, "leaves": float(leaves)}


@app.post("/outcome")
def outcome(told: Outcome) -> None:
    reporter.feedback(told.prediction_id, told.label)
