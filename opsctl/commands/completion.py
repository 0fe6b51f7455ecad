"""`opsctl completion`: what a shell needs to complete our commands."""

import click
from click.shell_completion import get_completion_class

from opsctl.kinds import reads


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@reads
def completion(shell: str) -> None:
    """Print the completion script of SHELL; source it from the shell's start-up file."""
    from opsctl.cli import cli  # noqa: PLC0415 - the group imports this module

    script = get_completion_class(shell)
    assert script is not None  # noqa: S101 - the choices above are click's own
    click.echo(script(cli, {}, "opsctl", "_OPSCTL_COMPLETE").source())
