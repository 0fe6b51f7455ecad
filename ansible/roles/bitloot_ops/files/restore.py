"""Follow RestoreDatabase, and RestoreObjects if told, as a JSON on standard input says; exit 1 where they stop.

Input: {"superuser": DSN, "live": DATABASE, "reason": TEXT, "settings": {NAME: VALUE}, "objects": BOOL}. No password is
in an argument: the superuser's is in a file only we read, in memory, for as long as this takes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from opslib.areas import runbooks

DESK = "bitloot_desk"
"""Where it is written down what is done, while the database itself is away."""


def follow(name: str, reason: str, environment: Mapping[str, str]) -> None:
    """Do what the page says: first what is typed by hand, then its steps.

    Raises:
        SystemExit: One of them failed.
    """
    for script in runbooks.read(name).before:
        code, _output = runbooks.execute(script, environment, lambda line: print(line, flush=True))
        if code:
            sys.exit(code)
    command = [str(Path(sys.executable).with_name("opsctl")), "runbook", "run", name, "--yes", "--reason", reason]
    code = subprocess.run(command, env=environment, check=False, stdin=subprocess.DEVNULL).returncode  # noqa: S603 - ours
    if code:
        sys.exit(code)


def main() -> None:
    """The database, then the objects."""
    given = json.load(sys.stdin)
    login = conninfo_to_dict(given["superuser"])
    password, user = str(login.pop("password", "")), str(login["user"])
    with tempfile.TemporaryDirectory(dir="/run") as home:
        passwords = Path(home, ".pgpass")
        passwords.touch(mode=0o600)
        passwords.write_text("*:*:*:" + ":".join(_escaped(each) for each in (user, password)) + "\n", "utf-8")
        known = {**os.environ, **{name: str(value) for name, value in given["settings"].items()}, "HOME": home}
        database = {
            "RESTORE_DATABASE_URL": make_conninfo(**login),
            "OPS_DATABASE_URL": make_conninfo(**{**login, "dbname": DESK}),
            "LIVE": given["live"],
            "TARGET": f"{given['live']}_restored_{time.strftime('%Y%m%d%H%M%S', time.gmtime())}",
        }
        follow("RestoreDatabase", given["reason"], known | database)
        if given["objects"]:
            live = make_conninfo(**{**login, "dbname": given["live"]})
            follow("RestoreObjects", given["reason"], known | {"DATABASE_URL": live})


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


if __name__ == "__main__":
    main()
