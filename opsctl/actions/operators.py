"""Operators: people with a login of their own. Adding and disabling one, the worked example of an action."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click
import psycopg

from opsctl.actions import Role, Severity, action
from opslib.errors import NotFoundError, OpsError
from opslib.postgres import describe

if TYPE_CHECKING:
    from opslib.guard import Act  # brings structlog, which a command that only lists does not need

PASSWORD_BYTES = 24


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What they may.")
@action(
    "operators.add",
    role=Role.SUPER,
    severity=Severity.RISKY,
    event="OPS_OPERATOR_ADD",
    touches="who may act",
    runbook="Operators",
)
def add(act: Act, name: str, role: str) -> None:
    """Give a person a login of their own. The password is printed once, and known to nobody else.

    A disabled operator comes back with a new password and the role given.
    """
    act.plan(name, f"create the login {name}, a member of ops_{role}")
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    with act.transaction() as connection:
        # Only the verifier goes over the wire: a server that logs statements logs no password.
        verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        try:
            connection.execute("SELECT ops.operator_add(%s, %s, %s)", (name, role, verifier))
        except (psycopg.errors.InvalidParameterValue, psycopg.errors.DuplicateObject) as exc:
            raise OpsError(describe(exc)) from exc
    click.echo(f"{name} may log in; the password, shown this once:", err=True)
    click.echo(password)


@click.command()
@click.argument("name")
@action(
    "operators.disable",
    role=Role.SUPER,
    severity=Severity.RISKY,
    event="OPS_OPERATOR_DISABLE",
    touches="who may act",
    runbook="Operators",
)
def disable(act: Act, name: str) -> None:
    """Take a person's login and rights away, at once. What they did stays in the audit."""
    act.plan(name, f"disable the login {name} and end its sessions")
    with act.transaction() as connection:
        try:
            row = connection.execute("SELECT ops.operator_disable(%s)", (name,)).fetchone()
        except psycopg.errors.NoDataFound as exc:
            raise NotFoundError(f"{describe(exc)}; `opsctl operators list` shows who there is") from exc
        except psycopg.errors.InvalidParameterValue as exc:
            raise OpsError(describe(exc)) from exc
    click.echo(f"{name} is disabled; sessions ended: {row[0] if row else 0}")
