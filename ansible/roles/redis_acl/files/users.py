"""Make the Redis users as a JSON on standard input says; print which were changed, nothing if none was.

Input: {"url": URL, "prefix": PREFIX, "passwords": {USER: PASSWORD}}.
"""

import json
import sys

from redis import Redis
from redis.exceptions import ResponseError

from opslib.areas import redis_acl


def main() -> None:
    """Make them; keep them in the server's users.acl, where it has one."""
    given = json.load(sys.stdin)
    with Redis.from_url(given["url"], decode_responses=True) as client:
        before = set(client.execute_command("ACL", "LIST"))
        for user, password in given["passwords"].items():
            client.execute_command("ACL", "SETUSER", user, *redis_acl.rules(user, given["prefix"]), f">{password}")
        changed = set(client.execute_command("ACL", "LIST")) - before
        try:
            client.execute_command("ACL", "SAVE")
        except ResponseError as exc:
            if "ACL file" not in str(exc):
                raise
        print(*sorted(line.split()[1] for line in changed), sep="\n", end="")


if __name__ == "__main__":
    main()
