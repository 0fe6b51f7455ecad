"""The page of every command, from the click tree."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator

import click

from opsctl.kinds import kind_of
from opsctl.render.markdown import GENERATED, table
from opslib.action import Action

INTRODUCTION = """\
`opsctl COMMAND --help` says the same. A command changes nothing unless this page says which role it takes; each of
those leaves an audit event. `--json` and `--csv` print for programs, in UTC. Completion:
`opsctl completion bash|zsh|fish`. Source: `opsctl/commands/` and `opsctl/actions/`.

`opsctl --no-color COMMAND`, or `NO_COLOR` in the environment, prints without colour; so does a pipe.

| Exit code | Meaning |
| --- | --- |
| 0 | done |
| 1 | failed, or a check found something |
| 2 | wrong usage or settings |
| 3 | refused by the guard |
| 4 | not found |
| 5 | a backend is unreachable or answers nonsense |
"""

KINDS = {
    "reads": "Reads only.",
    "serves": "Runs until SIGTERM, under a login of its own.",
    "deploys": "Part of a deployment, as the owner of the schema.",
}


def page(commands: Iterable[tuple[str, click.Command]]) -> str:
    """The page, from each name on the command line and its command."""
    parts = ["# Commands\n", GENERATED, INTRODUCTION]
    for name, command in commands:
        parts += _parts(command, f"opsctl {name}", 2)
    return "\n".join(parts)


def _parts(command: click.Command, path: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield f"{'#' * level} {path}\n"
    arguments = " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS]", "").strip()
    if not isinstance(command, click.Group):
        yield f"    {path} {arguments}".rstrip() + "\n"
    yield inspect.cleandoc((command.help or "").replace("\b\n", "")) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _parts(child, f"{path} {name}", level + 1)
        return
    if text := _kind(command):
        yield f"{text}\n"
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    rows = [record for option in options if (record := option.get_help_record(context)) is not None]
    if rows:
        yield table(("Option", "Meaning"), ((f"`{name}`", " ".join(text.split())) for name, text in rows))


def _kind(command: click.Command) -> str:
    kind = kind_of(command)
    if isinstance(kind, Action):
        return (
            f"Takes the role {kind.role}; {kind.severity}; changes {kind.touches}. "
            f"Audit: `{kind.event}`, action `{kind.name}`."
        )
    return KINDS.get(kind, "")
