"""Every row of the fault table: what must hold does, and does not without its protection.

The quick rows run with all other tests, the long ones and those without protection by
`make test-faults`. `python -m tests.faults` runs the same rows and writes docs/faults.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.broker import Broker
from tests.faults.report import SEED, Result, broker_for, perform, settings_for
from tests.faults.rows import Row
from tests.faults.table import ROWS
from tests.faults.world import Unable


def parameters(*, unprotected: bool) -> list[Any]:
    return [
        pytest.param(
            row,
            id=row.id,
            marks=[
                pytest.mark.timeout(row.limit_seconds),
                *([pytest.mark.faults] if row.long or unprotected else []),
            ],
        )
        for row in ROWS
        if row.sabotage or not unprotected
    ]


def run(row: Row, broker: Broker, prefix: str, folder: Path, sabotage: str = "") -> Result:
    with broker_for(row, broker, folder) as one:
        settings = settings_for(one, prefix, folder)
        try:
            return perform(row, one, settings, folder, seed=SEED, sabotage=sabotage)
        except Unable as lacking:
            pytest.skip(str(lacking))


@pytest.mark.parametrize("row", parameters(unprotected=False))
def test_row_holds(row: Row, broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """0 lost, 0 doubled, and the state is that of the offline fold."""
    result = run(row, broker, topic_prefix, tmp_path)
    assert result.holds, result.found
    print(result.outcome)


@pytest.mark.parametrize("row", parameters(unprotected=True))
def test_row_fails_without_its_protection(
    row: Row, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """A row that can't fail would prove nothing."""
    result = run(row, broker, topic_prefix, tmp_path, row.sabotage)
    assert not result.holds
    print(result.found)
