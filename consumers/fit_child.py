"""The child of a fit: reads the labelled examples, fits, and leaves the bytes in the store.

Artefact and profile are stored by content, which is harmless if nobody ever registers them.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable

import msgspec

from consumers.fitting import Fitted, Job, Step
from stream.settings import Settings


def main() -> int:
    """Read a job from stdin, write its result where stdout was; libraries print to stderr."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settings = Settings(**job.settings)
    _limit(settings.fit_memory_mb)
    with answer:

        def tell(value: object) -> None:
            answer.write(msgspec.json.encode(value) + b"\n")
            answer.flush()

        tell(_fitted(job, settings, lambda doing: tell(Step(doing))))
    return 0


def _fitted(job: Job, settings: Settings, tell: Callable[[str], None]) -> Fitted:
    from consumers.training import train_from_topics  # takes a second to import

    try:
        return train_from_topics(job, settings, tell)
    except MemoryError:
        reason = (
            f"needed more than fit_memory_mb = {settings.fit_memory_mb}; raise it, or lower "
            "training.maximum_rows in the spec"
        )
        return Fitted(verdict="failed", reason=reason)
    except Exception as error:
        return Fitted(verdict="failed", reason=f"{type(error).__name__}: {error}"[:500])


def _limit(memory_mb: int) -> None:
    """Bound what the fit may allocate, and let the stages go first."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    os.nice(5)


def _end_with_parent() -> None:
    # The bare descriptor: a lock on stdin, held here, would break the interpreter's own end.
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
