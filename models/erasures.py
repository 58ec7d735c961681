"""Predictions whose data no training may use any more, by a hash of their ids.

The registry keeps no id: whoever holds one can ask whether it was erased, nobody can list them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sqlalchemy import Connection, insert, select

from models import tables as t
from models.database import Door, UnknownModel


def erasure_of(model: str, prediction_id: str) -> str:
    """What is kept of an erased prediction: 64 hex digits."""
    return hashlib.sha256(f"{model}\x1f{prediction_id}".encode(errors="replace")).hexdigest()


class Erasures(Door):
    """The registry's part that says what training leaves out."""

    def erase(
        self, model: str, prediction_ids: Iterable[str], *, who: str = "", reason: str = ""
    ) -> int:
        """Leave these out of every training that begins from now on. Safe to repeat.

        Returns how many were not erased before.

        Raises:
            UnknownModel
        """
        asked = {erasure_of(model, one) for one in prediction_ids}
        now = self._clock()

        def work(connection: Connection) -> int:
            known = select(t.models.c.name).where(t.models.c.name == model)
            if connection.execute(known).first() is None:
                raise UnknownModel(f"no model {model!r}")
            new = sorted(asked - _erased(connection, model))
            row = {"model": model, "erased_ms": now, "who": who, "reason": reason}
            if new:
                connection.execute(insert(t.erasures), [{**row, "digest": one} for one in new])
            return len(new)

        return self._database.write(work)

    def erased(self, model: str) -> set[str]:
        """What `erasure_of` gives for every erased prediction of a model."""
        return self._database.read(lambda connection: _erased(connection, model))


def _erased(connection: Connection, model: str) -> set[str]:
    rows = select(t.erasures.c.digest).where(t.erasures.c.model == model)
    return set(connection.execute(rows).scalars())
