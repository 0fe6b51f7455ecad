"""What kind of command a command is. Each says it, or it does not run.

- `@reads`: it changes nothing; every Postgres connection it makes refuses writes at the server.
- `@action(…)` (`opsctl.actions`): an operator changes something; through the guard, remembered in the audit.
- `@serves`: a process that runs on, under a login of its own whose rights are its limits.
- `@deploys`: part of a deployment, under the login that owns the schema: nothing is there yet, or any more, to ask for
  roles and to remember with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import click

P = ParamSpec("P")
T = TypeVar("T")

KIND = "__opsctl_kind__"


def reads(command: Callable[P, T]) -> Callable[P, T]:
    """It changes nothing."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from opslib.postgres import reading  # noqa: PLC0415 - some commands ask no database

        with reading():
            return command(*args, **kwargs)

    return marked(run, "reads")


def serves(command: Callable[P, T]) -> Callable[P, T]:
    """It runs on, under a login of its own."""
    return marked(command, "serves")


def deploys(command: Callable[P, T]) -> Callable[P, T]:
    """It is part of a deployment, as the schema's owner."""
    return marked(command, "deploys")


def marked(command: Callable[P, T], kind: Any) -> Callable[P, T]:
    """Note a command's kind: a word, or the `Action` it is."""
    setattr(command, KIND, kind)
    return command


def kind_of(command: click.Command) -> Any:
    """Its kind; None if it says none."""
    return getattr(command.callback, KIND, None)


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below (and with) this one that does something, with the words that lead to it."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from leaves(child, f"{path} {name}")


def demand(command: click.Command, path: str) -> None:
    """Refuse a command, or a group, in which one says no kind.

    Raises:
        RuntimeError: Naming it.
    """
    for words, leaf in leaves(command, path):
        if kind_of(leaf) is None:
            raise RuntimeError(f"`opsctl {words}` does not say what kind it is: see opsctl/kinds.py")
