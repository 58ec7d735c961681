"""What every command shares: exit codes, output, settings, and errors as one sentence.

Data goes to stdout, messages to stderr. Off a terminal nothing asks, and nothing is coloured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from models.registry import Registry
    from stream.settings import Settings

OK, FAILURE, USAGE, BREACH, INTERRUPTED = 0, 1, 2, 3, 130

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def model_names(begun: str) -> list[str]:
    """For the shell to complete: models that begin so; none where the registry does not answer."""
    from models.database import RegistryError
    from stream.errors import DriftlineError

    try:
        with registry(load_settings()) as opened:
            return [state.model for state in opened.models() if state.model.startswith(begun)]
    except (DriftlineError, RegistryError, OSError):
        return []


Model = Annotated[
    str,
    typer.Argument(help="The model's name.", show_default=False, autocompletion=model_names),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


class Group(TyperGroup):
    """Turns errors that say what to do into exit codes, and others into a short sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # whoever read us has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OK) from None
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            from stream.errors import explained

            say(f"error: {explained(error)}")
            raise typer.Exit(code) from error


def group(help_text: str, *, alone: bool = False) -> typer.Typer:
    """An empty group of commands in the house's manner; `alone`: its name is a command as well."""
    return typer.Typer(
        help=help_text,
        cls=Group,
        no_args_is_help=not alone,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def say(message: str) -> None:
    """A message for a person, on stderr."""
    typer.echo(message, err=True)


def print_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    import msgspec

    typer.echo(msgspec.json.encode(value, enc_hook=str).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns; headings are emboldened on a terminal that wants colour."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    typer.echo(_styled(_line(columns, widths)))
    for row in cells:
        typer.echo(_line(row, widths))


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """One name and value a line; fields without a value are left out."""
    shown = [(name, value) for name, value in fields if value not in (None, "", [], {}, ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        typer.echo(f"{name.ljust(width)}  {value}")


def load_settings() -> Settings:
    """Settings from flags (already in the environment), environment, file and defaults."""
    from stream.settings import load

    return load()


def registry(settings: Settings) -> Registry:
    """The registry, as a context manager."""
    from models.registry import Registry

    return Registry(settings.registry_url)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere `--yes` must have said it.

    Raises:
        typer.Exit: not confirmed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        say("error: nobody can be asked here; add --yes")
        raise typer.Exit(USAGE)
    if not typer.confirm(question, err=True):
        raise typer.Exit(FAILURE)


def who() -> str:
    """The person behind this command, for the audit."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def parse_time(text: str) -> int:
    """A time on the command line, in milliseconds since 1970.

    Raises:
        typer.BadParameter: it is none.
    """
    from consumers.files import time_ms

    try:
        return time_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def show_time(time_ms: int | None) -> str:
    """
    >>> show_time(1000)
    '1970-01-01 00:00:01Z'
    """
    if time_ms is None:
        return ""
    return datetime.fromtimestamp(time_ms // 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _exit_code(error: Exception) -> int | None:
    """None: a defect, whose traceback should be seen."""
    from models.artefacts import ArtefactError
    from models.database import RegistryError, RegistryMisuse, RegistryOutdated
    from stream.errors import ConfigurationError, DriftlineError

    if isinstance(error, ConfigurationError | RegistryMisuse | RegistryOutdated):
        return USAGE
    if isinstance(error, DriftlineError | RegistryError | ArtefactError | OSError):
        return FAILURE
    return None


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip()


def _styled(text: str) -> str:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return typer.style(text, bold=True)
    return text
