"""`driftline dlq`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
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
)

if TYPE_CHECKING:
    from consumers.deadletters import DeadLetter

app = group("Dead letters: records that were refused, whole, with the reason.")

Entity = Annotated[
    str, typer.Argument(help="requests, predictions or feedback.", show_default=False)
]
WhichReason = Annotated[
    str | None, typer.Option("--reason", help="Only those with this reason.", show_default=False)
]


@app.command("list")
def list_letters(
    entity: Annotated[
        str | None,
        typer.Argument(
            help="requests, predictions, feedback, commands or alerts; all by default.",
            show_default=False,
        ),
    ] = None,
    reason: WhichReason = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to list, newest last.")] = 50,
    *,
    json: Json = False,
) -> None:
    """List what was refused, with counts by reason on stderr.

    Example: driftline dlq list requests --reason bad-features
    """
    letters = _read(entity, reason)
    for (topic, why), count in sorted(Counter((x.entity, x.reason) for x in letters).items()):
        say(f"{topic}: {count} {why}")
    newest = sorted(letters, key=lambda letter: letter.timestamp_ms)[-limit:]
    if json:
        print_json([_plain(letter) for letter in newest])
        return
    print_table(
        ("TOPIC", "PARTITION", "OFFSET", "TIME", "REASON", "DETAIL", "KEY", "BYTES"),
        [
            (
                letter.entity,
                letter.place.partition,
                letter.place.offset,
                show_time(letter.timestamp_ms),
                letter.reason,
                _line(letter.detail, 60),
                _line(_text(letter.key), 40),
                len(letter.value or b""),
            )
            for letter in newest
        ],
    )


@app.command()
def show(
    entity: Entity,
    partition: Annotated[int, typer.Argument(help="Of the dead letter.", show_default=False)],
    offset: Annotated[int, typer.Argument(help="Of the dead letter.", show_default=False)],
    *,
    json: Json = False,
) -> None:
    """Show one dead letter whole.

    Example: driftline dlq show requests 2 17
    """
    from consumers import deadletters
    from consumers.loop import RangeReader
    from consumers.places import Place

    with RangeReader(load_settings()) as reader:
        letter = deadletters.find(reader, entity, Place(partition, offset))
    if json:
        print_json(_plain(letter))
        return
    print_fields(
        [
            ("topic", letter.entity),
            ("reason", letter.reason),
            ("detail", letter.detail),
            ("stage", letter.stage),
            ("lay at", letter.origin),
            ("time", show_time(letter.timestamp_ms)),
            ("key", _line(_text(letter.key), 300)),
            *((f"header {name}", _line(_text(value), 300)) for name, value in letter.headers),
        ]
    )
    typer.echo()
    typer.echo(_text(letter.value))


@app.command()
def replay(
    entity: Entity, reason: WhichReason = None, *, yes: Yes = False, json: Json = False
) -> None:
    """Send dead letters to their topic again, as they were, once the cause is gone.

    What `driftline bridge` refused goes to the topic that it read, for it to read again.

    What still does not fit comes back; what fits is applied once, also if it is replayed twice.

    Example: driftline dlq replay requests --reason unknown-model --yes
    """
    from consumers import deadletters

    letters = _read(entity, reason)
    sent, told = 0, ""
    if letters:
        ways = Counter(letter.source or entity for letter in letters)
        told = ", ".join(f"{count} records to {topic}" for topic, count in sorted(ways.items()))
        confirm(f"Send {_line(told, 300)} again?", yes=yes)
        sent = deadletters.replay(letters, load_settings())
    if json:
        print_json({"topic": entity, "sent": sent})
    else:
        say(f"sent again: {_line(told, 300)}" if sent else "no such dead letters")


def _read(entity: str | None, reason: str | None) -> list[DeadLetter]:
    from consumers import deadletters
    from consumers.loop import RangeReader

    entities = deadletters.ENTITIES if entity is None else (entity,)
    with RangeReader(load_settings()) as reader:
        return list(deadletters.read(reader, entities, reason))


def _plain(letter: DeadLetter) -> dict[str, object]:
    plain = letter._asdict()
    return plain | {
        "place": letter.place._asdict(),
        "key": _text(letter.key),
        "value": _text(letter.value),
        "headers": [[name, _text(value)] for name, value in letter.headers],
    }


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="backslashreplace")


def _line(text: str, width: int) -> str:
    """Text of strangers on one line, without control characters.

    >>> _line("a\\x1b[31m\\nb", 20)
    'a?[31m?b'
    """
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= width else f"{clean[: width - 1]}…"
