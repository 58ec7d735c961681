"""Python's collector of cycles, set for a process whose work is records."""

from __future__ import annotations

import gc


def calm() -> None:
    """Records make hundreds of thousands of containers and hardly a cycle: look for them rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
