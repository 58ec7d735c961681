"""How long tests wait for what must come to pass."""

from __future__ import annotations

from typing import Final

#: Only a failure waits so long. Seconds become minutes where a slow machine does much else.
PATIENCE_SECONDS: Final = 180.0

#: From SIGTERM to SIGKILL, as docker-compose.yml has it.
GRACE_SECONDS: Final = 15.0
