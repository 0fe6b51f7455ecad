"""`opsctl objects`: what lies in the bucket beside backups."""

from __future__ import annotations

import click

from opsctl.actions.objects import restore


@click.group()
def objects() -> None:
    """The bucket's objects, the keys customers bought above all, and their replicas."""


objects.add_command(restore)
