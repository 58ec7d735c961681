"""Why an alert was not taken, and whether it is worth another try."""

from __future__ import annotations

from typing import Final

from stream.errors import DriftlineError

#: Why an attempt failed: a label of the metric of failures, so there are no others.
WHY: Final = frozenset(
    {
        "unreachable",  # refused, no such host, the connection ended early
        "timeout",
        "tls",  # a certificate that is not trusted, STARTTLS refused
        "redirect",  # never followed
        "rate-limited",  # 429
        "rejected",  # this alert will never be taken as it is: 400, 413, 422, SMTP 5xx
        "status",  # any other status that is no success
        "login",
        "command",  # exit code other than 0
        "defect",  # ours
    }
)


class NotTaken(DriftlineError):
    """A sink did not take an alert.

    Attributes:
        why: one of `WHY`.
        for_good: another attempt makes no sense.
        after_seconds: the sink asked to be left alone for so long.
    """

    def __init__(
        self, why: str, detail: str, *, for_good: bool = False, after_seconds: float | None = None
    ) -> None:
        super().__init__(f"{why}: {detail}")
        self.why = why
        self.detail = detail
        self.for_good = for_good
        self.after_seconds = after_seconds
