"""The same model behind FastAPI, watched from outside: the application itself knows of nothing.

KAFKA_BOOTSTRAP_SERVERS=localhost:9092 uvicorn wrapped:app --app-dir examples/python
"""

from __future__ import annotations

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.linear_model import LogisticRegression

from consumers.reporter import Reporter
from consumers.wrapping import Watching


class Customer(BaseModel):
    age: float
    visits: float


def trained() -> LogisticRegression:
    """Stands for a model of your own."""
    random = np.random.default_rng(7)
    rows = random.uniform([18, 0], [80, 30], size=(500, 2))
    return LogisticRegression().fit(rows, rows[:, 0] / 80 + random.normal(0, 0.2, 500) > 0.6)


app = FastAPI()
model = trained()


@app.post("/predict")
def predict(customer: Customer) -> dict[str, float]:
    return {"leaves": float(model.predict_proba([[customer.age, customer.visits]])[0, 1])}


reporter = Reporter("loyalty", version=1)
app.add_middleware(Watching, reporter=reporter, path="/predict", output="leaves")
