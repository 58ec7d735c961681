"""`driftline alerts`: the service that sends alerts on; what is wrong, and who sees to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from consumers.commands.common import (
    FAILURE,
    USAGE,
    Json,
    Yes,
    confirm,
    group,
    load_settings,
    print_fields,
    print_json,
    print_table,
    say,
    show_time,
    who,
)

if TYPE_CHECKING:
    from stream.events import Alert

app = group(
    "Send alerts on until SIGTERM: to webhooks, Slack, PagerDuty, by email, to a command; each at "
    "least once. The sinks are in the file that DRIFTLINE_ALERT_SINKS names (alerts.toml).\n\n"
    "With a subcommand: see what is wrong, say who sees to it, look after the sinks.\n\n"
    "Example: driftline alerts",
    alone=True,
)

AlertId = Annotated[str, typer.Argument(help="An alert's id, or how it begins.")]
Note = Annotated[str, typer.Option("--note", help="What others should know.")]
Wait = Annotated[
    float, typer.Option(help="Seconds to wait until evaluate has done it; 0: do not wait.")
]
SinkName = Annotated[str, typer.Argument(help="A sink of the file.", show_default=False)]


@app.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from consumers.sinks.service import run

    raise typer.Exit(run(load_settings()))


@app.command()
def sinks(*, json: Json = False) -> None:
    """List the sinks, what each takes, and whether its secrets are where the file says.

    Example: driftline alerts sinks
    """
    from consumers.sinks.trying import listing

    found = listing(load_settings())
    if json:
        print_json(found)
    else:
        print_table(
            ("SINK", "KIND", "EVENTS", "SEVERITIES", "PROBLEMS", "MODELS", "WRONG"),
            [tuple(" ".join(x) if isinstance(x, tuple) else x for x in row) for row in found],
        )
    if any(row.wrong for row in found):
        raise typer.Exit(USAGE)


@app.command("test")
def try_sink(
    sink: SinkName,
    *,
    over: Annotated[
        bool, typer.Option("--resolve", help="Send that the test alert is over.")
    ] = False,
    json: Json = False,
) -> None:
    """Send one test alert to one sink, now and once, whatever its filters say.

    Example: driftline alerts test pager
    """
    from consumers.sinks.trying import try_out

    try_out(load_settings(), sink, resolved=over)
    say(f"{sink} took it")
    if json:
        print_json({"sink": sink, "taken": True})


@app.command()
def retry(
    sink: SinkName,
    since: Annotated[
        str | None,
        typer.Option(help="Only what was laid down in the last 12h, 2d, ...", show_default=False),
    ] = None,
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Send a sink the alerts that it did not take: of each, the newest of its dead letters.

    Example: driftline alerts retry pager --since 12h --yes
    """
    from consumers.alerting import seconds_of
    from consumers.sinks.trying import send_again, undelivered

    settings = load_settings()
    try:
        seconds = None if since is None else seconds_of(since)
    except ValueError as error:
        say(f"error: --since {since}: {error}")
        raise typer.Exit(USAGE) from None
    letters = undelivered(settings, sink, seconds)
    taken, failed = 0, list[str]()
    if letters:
        confirm(f"Send {len(letters)} alerts to {sink}?", yes=yes)
        taken, failed = send_again(settings, sink, letters)
        say(f"{sink} took {taken} of {len(letters)}")
    else:
        say("no such dead letters")
    if json:
        print_json({"sink": sink, "dead_letters": len(letters), "taken": taken, "failed": failed})
    for reason in failed:
        say(f"error: {reason}")
    if failed:
        raise typer.Exit(FAILURE)


@app.command("list")
def list_alerts(
    model: Annotated[
        str | None, typer.Option(help="Only this model's.", show_default=False)
    ] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Resolved ones, too.")] = False,
    json: Json = False,
) -> None:
    """Show the alerts that are not resolved, the worst first.

    Example: driftline alerts list --model churn
    """
    from consumers.alerting import newest

    found = [
        alert
        for alert in newest(load_settings())
        if (all_ or alert.state != "resolved") and model in (None, alert.model)
    ]
    if json:
        print_json(found)
        return
    print_table(
        ("ALERT", "MODEL", "STATE", "SEVERITY", "SINCE", "WHAT"),
        [
            (
                alert.alert_id[:12],
                alert.model,
                state(alert),
                alert.severity,
                show_time(alert.opened_ms),
                alert.sentence,
            )
            for alert in found
        ],
    )


@app.command()
def show(alert_id: AlertId, *, json: Json = False) -> None:
    """Show one alert with its evidence.

    Example: driftline alerts show 1cec68282d10
    """
    alert = _one(alert_id)
    if json:
        print_json(alert)
        return
    plain = msgspec.to_builtins(alert)
    evidence = plain.pop("evidence", {})
    times = ("opened_ms", "updated_ms", "resolved_ms", "handled_ms", "snoozed_until_ms")
    print_fields([(k.removesuffix("_ms"), _shown(v, time=k in times)) for k, v in plain.items()])
    typer.echo()
    print_fields([(f"evidence {name}", value) for name, value in evidence.items()])


@app.command()
def acknowledge(
    alert_id: AlertId, note: Note = "", wait: Wait = 10.0, *, json: Json = False
) -> None:
    """Say that somebody sees to it. It stays until it is over.

    Example: driftline alerts acknowledge 1cec68282d10 --note "looking at the feed"
    """
    _handle(alert_id, "acknowledge", note, None, wait, json=json)


@app.command()
def snooze(
    alert_id: AlertId,
    duration: Annotated[str, typer.Option("--for", help="30m, 12h, 2d: in event time.")] = "1d",
    note: Note = "",
    wait: Wait = 10.0,
    *,
    json: Json = False,
) -> None:
    """Be quiet about it for a while; then it is open again, if it still is.

    Example: driftline alerts snooze 1cec68282d10 --for 12h --note "known until the release"
    """
    from consumers.alerting import seconds_of

    try:
        seconds = seconds_of(duration)
    except ValueError as error:
        say(f"error: --for {duration}: {error}")
        raise typer.Exit(USAGE) from None
    _handle(alert_id, "snooze", note, seconds, wait, json=json)


@app.command()
def resolve(alert_id: AlertId, note: Note = "", wait: Wait = 10.0, *, json: Json = False) -> None:
    """Say that it is over. Should it not be, it comes back.

    Example: driftline alerts resolve 1cec68282d10 --note "the feed was mended"
    """
    _handle(alert_id, "resolve", note, None, wait, json=json)


@app.command()
def reopen(alert_id: AlertId, note: Note = "", wait: Wait = 10.0, *, json: Json = False) -> None:
    """Take back that it was acknowledged or snoozed.

    Example: driftline alerts reopen 1cec68282d10
    """
    _handle(alert_id, "reopen", note, None, wait, json=json)


def state(alert: Alert) -> str:
    """The state as a person reads it."""
    if alert.state == "snoozed":
        return f"snoozed until {show_time(alert.snoozed_until_ms)} by {alert.handled_by}"
    if alert.state == "acknowledged":
        return f"acknowledged by {alert.handled_by}"
    return alert.state + (f", came back {alert.reopened} times" if alert.reopened else "")


def _one(alert_id: str) -> Alert:
    from consumers.alerting import newest

    found = [alert for alert in newest(load_settings()) if alert.alert_id.startswith(alert_id)]
    if len(found) != 1:
        what = "no alert" if not found else f"{len(found)} alerts"
        say(f"error: {what} with an id that begins with {alert_id!r}")
        raise typer.Exit(FAILURE)
    return found[0]


def _handle(
    alert_id: str,
    kind: Literal["acknowledge", "snooze", "resolve", "reopen"],
    note: str,
    seconds: float | None,
    wait: float,
    *,
    json: bool,
) -> None:
    from consumers.alerting import handle
    from stream.core.alerts import refusal

    alert = _one(alert_id)
    reason = refusal(alert, kind)
    if reason:
        say(f"error: {reason}")
        raise typer.Exit(FAILURE)
    done = handle(
        load_settings(), alert, kind, who=who(), note=note, seconds=seconds, wait_seconds=wait
    )
    if json:
        print_json(done)
    if done is not None:
        say(f"{done.alert_id[:12]} is {state(done)}")
    elif wait:
        say("error: written, but evaluate has not done it yet; is a worker running?")
        raise typer.Exit(FAILURE)


def _shown(value: object, *, time: bool) -> object:
    return show_time(value) if time and isinstance(value, int) else value
