"""What a row of the fault table is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.world import Outcome, World


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    Attributes:
        done: what is done, one sentence for the table.
        invariant: what must hold in the end, beside "0 lost, 0 doubled, state equals the fold".
        kept_by: the protection.
        sabotage: a name of `tests.faults.sabotage.SABOTAGES`, with which the row must fail.
        seen: how the row was seen to fail where no sabotage can be run by a command.
        long: not in `make test`.
        own_broker: it ends its broker, or needs another one.
        limit_seconds: longer is a failure.
    """

    id: str
    run: Callable[[World], Outcome]
    done: str
    invariant: str
    kept_by: str
    sabotage: str = ""
    seen: str = ""
    long: bool = True
    own_broker: bool = False
    limit_seconds: float = 600


EXACT = "every request predicted once, every label counted once, state equals the offline fold"
TRANSACTION = "outputs, checkpoint and offsets in one transaction"
FENCING = "offsets go with the group's generation, which the group refuses when it is over"
