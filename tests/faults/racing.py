"""One racer: `python -m tests.faults.racing <registry url> <seed> <rounds>`.

Two of three changes are commands on the generation that it has just seen, one is a person's.
"""

from __future__ import annotations

import random
import sys

from models.registry import Registry

MODEL = "churn"


def race(registry: Registry, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    for number in range(rounds):
        state = registry.live(MODEL)
        assert state is not None
        if number % 3 == 2:
            getattr(registry, dice.choice(("promote", "pin", "unpin")))(
                MODEL, *([dice.randint(1, 3)] if not state.pinned else []), who=f"person {seed}"
            )
            continue
        kind = dice.choice(("challenge", "promote", "rollback"))
        version = dice.randint(1, 3) if kind != "rollback" else None
        getattr(registry, kind)(
            MODEL,
            version,
            expected_generation=state.generation,
            command_id=f"{seed}-{number}",
            who=f"racer {seed}",
        )


if __name__ == "__main__":
    with Registry(sys.argv[1]) as opened:
        race(opened, int(sys.argv[2]), int(sys.argv[3]))
