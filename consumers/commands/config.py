"""`driftline config`."""

from __future__ import annotations

import os

from consumers.commands.common import Json, group, load_settings, print_json, print_table, say

app = group("Settings: what is in force, and where it comes from.")


@app.command()
def show(*, json: Json = False) -> None:
    """Show every setting, its value and its origin. Secrets are masked.

    Example: DRIFTLINE_PARTITIONS=8 driftline config show
    """
    from stream.security import shown
    from stream.settings import Settings

    settings = load_settings()
    rows = [
        {
            "name": name,
            "value": shown(name, getattr(settings, name)),
            "origin": origin(name),
            "description": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ("SETTING", "VALUE", "FROM", "MEANING"),
        [(row["name"], row["value"], row["origin"], row["description"]) for row in rows],
    )


@app.command()
def check(*, json: Json = False) -> None:
    """Exit 0 if the settings, and the file of alert sinks if there is one, are sound; else 2.

    Example: driftline config check
    """
    from pathlib import Path

    settings = load_settings()
    sinks = Path(settings.alert_sinks).exists()
    if sinks:
        from consumers.sinks.configured import load

        load(settings.alert_sinks)
    say("the settings are sound")
    if json:
        print_json({"sound": True, "alert_sinks": settings.alert_sinks if sinks else None})


def origin(name: str) -> str:
    """Where a setting comes from; flags arrive as environment variables."""
    from stream.settings import TOML_FILE

    variables = [f"DRIFTLINE_{name.upper()}"]
    if name == "bootstrap_servers":
        variables.append("KAFKA_BOOTSTRAP_SERVERS")
    for variable in variables:
        if variable in os.environ:
            return variable
    return str(TOML_FILE) if name in _file_names() else "default"


def _file_names() -> set[str]:
    import tomllib

    from stream.settings import TOML_FILE

    return set(tomllib.loads(TOML_FILE.read_text())) if TOML_FILE.exists() else set()
