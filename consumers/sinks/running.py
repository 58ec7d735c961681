"""One run of a command: the alert on its standard input, no shell, no secrets, an end to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from consumers.sinks.configured import Command
from consumers.sinks.outcomes import NotTaken
from consumers.sinks.wording import cut, line

#: What a program is told of our environment; the rest may hold secrets.
PASSED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
TAIL_BYTES: Final = 2000


async def run(sink: Command, stdin: bytes, more: Mapping[str, str]) -> None:
    """Start it, feed it, wait for it; whatever it started ends with it. The caller sets the limit.

    Raises:
        NotTaken: it could not be started, or did not end with 0.
    """
    told = {name: os.environ[name] for name in (*PASSED, *sink.environment) if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *sink.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**told, **more},
        )
    except OSError as error:
        raise NotTaken("command", f"{sink.argv[0]}: {error.strerror}") from error
    tail = bytearray()
    around = [
        asyncio.ensure_future(_feed(process, stdin)),
        asyncio.ensure_future(_listen(process, tail)),
    ]
    try:
        code = await process.wait()
        await asyncio.wait(around, timeout=0.2)  # what it said last is on its way
    finally:
        for one in around:
            one.cancel()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(asyncio.CancelledError):
            await process.wait()
    if code != 0:
        said = cut(line(tail.decode(errors="replace").strip()), 200)
        raise NotTaken("command", f"exit code {code}" + (f": {said}" if said else ""))


async def _feed(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  it was asked for
    with suppress(ConnectionError):  # it need not read
        process.stdin.write(stdin)
        await process.stdin.drain()
        process.stdin.close()


async def _listen(process: asyncio.subprocess.Process, tail: bytearray) -> None:
    """Keep the end of what it says on standard error, however much that is."""
    assert process.stderr is not None  # noqa: S101
    while piece := await process.stderr.read(TAIL_BYTES):
        tail += piece
        del tail[:-TAIL_BYTES]
