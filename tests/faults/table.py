"""The fault table: all rows, in the order in which they are shown."""

from __future__ import annotations

from tests.faults import (
    brokers,
    checkpoints,
    clocks,
    cluster,
    control,
    disks,
    floods,
    network,
    processes,
    topics,
    transient,
)
from tests.faults.rows import Row

ROWS: tuple[Row, ...] = (
    *processes.ROWS,
    *brokers.ROWS,
    *cluster.ROWS,
    *network.ROWS,
    *transient.ROWS,
    *topics.ROWS,
    *floods.ROWS,
    *checkpoints.ROWS,
    *control.ROWS,
    *disks.ROWS,
    *clocks.ROWS,
)
BY_ID = {row.id: row for row in ROWS}
