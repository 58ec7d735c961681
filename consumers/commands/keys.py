"""`driftline keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from consumers.commands.common import FAILURE, Json, group, print_json, say

app = group("Keys that commands and lifecycle records are signed with.")


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="Where to write it; .pub is what others may have.")],
    kind: Annotated[
        Literal["ed25519", "hmac"], typer.Option(help="hmac: one secret signs and checks.")
    ] = "ed25519",
    *,
    json: Json = False,
) -> None:
    """Make a key. Whoever signs gets FILE, whoever checks FILE.pub (of hmac: FILE itself).

    Example: driftline keys new evaluate.key
    """
    from consumers import keymaking

    files = keymaking.make(file, kind)
    if not files:
        say(f"error: {file} or {file}.pub is there already; a key is never overwritten")
        raise typer.Exit(FAILURE)
    say(f"written: {', '.join(map(str, files))}")
    _tell(file, json=json, files=[str(one) for one in files])


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A key, private or public.", exists=True)],
    *,
    json: Json = False,
) -> None:
    """Print a key's id, as signed events name it.

    Example: driftline keys show evaluate.key.pub
    """
    _tell(file, json=json)


def _tell(file: Path, *, json: bool, **more: object) -> None:
    from stream.signing import read_key

    id_ = read_key(file).id
    if json:
        print_json({"id": id_, **more})
    else:
        typer.echo(id_)
