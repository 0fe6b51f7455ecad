"""`opsctl redis-acl`: the Redis users to make, as commands to paste."""

from __future__ import annotations

import click

from opsctl.kinds import reads
from opslib import settings
from opslib.areas import redis_acl


@click.command("redis-acl")
@reads
def redis_acl_() -> None:
    """Print the commands that make the Redis users ops_read and ops_write, with a place for each password.

    Send them with redis-cli, then `ACL SAVE` (or keep them in the server's users.acl). Redis 7 or newer.
    """
    prefix = settings.load().bullmq_prefix
    for user in redis_acl.USERS:
        click.echo(f"ACL SETUSER {user} {' '.join(redis_acl.rules(user, prefix))} >PASSWORD-OF-{user.upper()}")
