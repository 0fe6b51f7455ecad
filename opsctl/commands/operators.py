"""`opsctl operators`: who may act."""

from __future__ import annotations

from typing import Any

import click
from psycopg.rows import dict_row

from opsctl.actions.operators import add, disable
from opsctl.kinds import reads
from opsctl.output import Column, Output, printed, printed_json
from opslib import audit, settings
from opslib.areas.queries import NAMED


@click.group()
def operators() -> None:
    """People with a login of their own: each a member of ops_staff or ops_super."""


operators.add_command(add)
operators.add_command(disable)


@operators.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """Show who there is. A member of ops_staff or ops_super that nobody added here shows as `by hand`."""
    columns: list[Column | str] = ["name", "role", Column("state", state=True), "added_at", "added_by", "disabled_at"]
    output.rows(
        _rows("operators"),
        [*columns, "last_action_at"],
        nothing="no operator yet: `opsctl operators add NAME --role super`",
    )


@operators.command()
@printed_json
@reads
def whoami(output: Output) -> None:
    """Show the login this is, and what the database says it may."""
    (me,) = _rows("whoami")
    if output.for_people:
        click.echo(f"{me['login']} is {me['role']} of database {me['database']} ({me['server']})")
    else:
        output.value(me)


def _rows(query: str) -> list[dict[str, Any]]:
    with (
        audit.connect(settings.load().require_ops(), append=False) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(NAMED[query].sql).fetchall()
