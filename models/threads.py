"""One core for each thread's numerics.

OpenMP and BLAS start a team of threads per call. For micro-batches and small fits a team costs more
than it gives, up to a thousand times more where other processes want the same cores; Driftline
scales by processes instead.
"""

from __future__ import annotations

import threading

from threadpoolctl import ThreadpoolController

_THREAD = threading.local()


def one_thread() -> None:
    """From now on keep this thread's numerics on one core. Costs nothing when called again.

    OpenMP holds the number for each thread apart, so every thread that predicts or fits must call.
    """
    if not getattr(_THREAD, "limited", False):
        ThreadpoolController().limit(limits=1)
        _THREAD.limited = True
