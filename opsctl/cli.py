"""`opsctl`: parse, call, print. Commands load when they are typed, so that `--help` costs next to nothing.

Exit codes: 0 done, 1 a check or action failed, 2 wrong usage or settings, 3 refused by the guard, 4 not found,
5 a backend is unreachable or answers nonsense.
"""

from __future__ import annotations

import sys

import click

from opsctl import catalog
from opsctl.kinds import demand


class Lazy(click.Group):
    """A group that knows its commands' names and help, and imports only the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command of the catalog."""
        del ctx
        return sorted(catalog.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command asked for. One that does not say whether it changes anything does not run."""
        del ctx
        entry = catalog.COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = catalog.load(entry.target)
        demand(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in sorted(catalog.COMMANDS.items())])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        from opslib import build  # noqa: PLC0415 - only when asked

        click.echo(f"opsctl {build.version()} ({build.commit()})")
        ctx.exit()


def _no_color(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        ctx.color = False


EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 refused, 4 not found, 5 backend unreachable."


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
@click.option("--no-color", is_flag=True, expose_value=False, callback=_no_color, help="Print without colour.")
def cli() -> None:
    """See, be called, act and recover: operations of a shop on Postgres, Redis/BullMQ and R2."""


def main() -> None:
    """Run; an error of ours is one message on stderr, never a traceback."""
    try:
        cli(prog_name="opsctl")
    except Exception as exc:
        from opslib.errors import OpsError  # noqa: PLC0415 - only on an error
        from opslib.redact import redact  # noqa: PLC0415 - only on an error

        if not isinstance(exc, OpsError):
            raise
        click.secho(f"opsctl: {redact(str(exc))}", fg="red", err=True)
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
