"""`driftline console`, and the tokens that open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    USAGE,
    Json,
    group,
    load_settings,
    print_json,
    print_table,
    say,
    show_time,
)

if TYPE_CHECKING:
    from consumers.console.access import Access

app = group(
    "Serve the web console until SIGTERM: fleet, models, alerts, pipeline, single events.\n\n"
    "On loopback whoever is on this machine may read. To act, or to come from elsewhere, takes a "
    "token: `driftline console token new NAME --role operate`.\n\n"
    "Example: driftline console --port 8420",
    alone=True,
)
tokens = group("Tokens: who may read the console from elsewhere, and who may operate it.")
app.add_typer(tokens, name="token")

Holder = Annotated[str, typer.Argument(help="Whose token it is.", show_default=False)]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Its port.", show_default=False)] = None,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from consumers.console.service import run
    from stream.settings import load

    raise typer.Exit(run(load(console_host=host, console_port=port)))


@tokens.command("new")
def new(
    name: Holder,
    role: Annotated[str, typer.Option(help="read, or operate: promote, roll back, pin.")] = "read",
    days: Annotated[
        float | None, typer.Option(min=0, help="Until it expires.", show_default=False)
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Make a token. It is shown this once: only a hash of it is kept.

    Example: driftline console token new ann --role operate --days 90
    """
    from consumers.console.access import ROLES

    if role not in ROLES:
        say(f"error: --role {role}: one of {', '.join(ROLES)}")
        raise typer.Exit(USAGE)
    with _access() as access:
        token = access.issue(name, role, days=days)
    if json:
        print_json({"name": name, "role": role, "token": token})
        return
    say(f"{name} may {role}. This is shown once; sign in with it at the console:")
    typer.echo(token)


@tokens.command("list")
def list_tokens(*, json: Json = False) -> None:
    """List tokens: whose, for what, until when. What they are nobody can tell.

    Example: driftline console token list
    """
    with _access() as access:
        found = access.tokens()
    if json:
        print_json(found)
        return
    print_table(
        ("NAME", "ROLE", "MADE", "EXPIRES", "REVOKED"),
        [
            (
                token.name,
                token.role,
                show_time(token.created_ms),
                show_time(token.expires_ms),
                show_time(token.revoked_ms),
            )
            for token in found
        ],
    )


@tokens.command("revoke")
def revoke(name: Holder, *, json: Json = False) -> None:
    """Make a token open nothing from now on.

    Example: driftline console token revoke ann
    """
    with _access() as access:
        access.revoke(name)
    say(f"the token of {name} opens nothing any more")
    if json:
        print_json({"name": name, "revoked": True})


@app.command("audit")
def audit(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    *,
    json: Json = False,
) -> None:
    """Show who asked the console for what, and what came of it; refused attempts too.

    Example: driftline console audit --json
    """
    with _access() as access:
        found = access.audit(limit)
    if json:
        print_json(found)
        return
    print_table(
        ("TIME", "WHO", "ACTION", "MODEL", "VERSION", "OUTCOME", "DETAIL", "REASON"),
        [
            (
                show_time(deed.asked_ms),
                deed.who,
                deed.action,
                deed.model,
                deed.version,
                deed.outcome,
                deed.detail,
                deed.reason,
            )
            for deed in found
        ],
    )


@contextmanager
def _access() -> Iterator[Access]:
    from consumers.console.access import Access
    from consumers.console.store import open_database

    database = open_database(load_settings().console_url)
    try:
        yield Access(database)
    finally:
        database.close()
