"""Make logins on a PostgreSQL as a JSON on standard input says; print what was changed, nothing if nothing was.

Input: {"owner": DSN, "logins": [{"url": DSN, "roles": [...], "settings": {NAME: VALUE}}]}; settings may be missing.
Only verifiers travel to the server.
"""

import base64
import hashlib
import hmac
import json
import sys
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict


def fits(verifier: str | None, password: str) -> bool:
    """Is this the verifier of that password? Computed as RFC 5802 says, so that an unchanged one stays."""
    if verifier is None or not verifier.startswith("SCRAM-SHA-256$"):
        return False
    _, parameters, keys = verifier.split("$")
    rounds, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(base64.b64encode(stored).decode(), keys.split(":")[0])


def make(connection: psycopg.Connection[Any], url: str, roles: list[str], settings: dict[str, str]) -> list[str]:
    """Make one login; what was changed."""
    wanted = conninfo_to_dict(url)
    name, password = str(wanted["user"]), str(wanted.get("password") or "")
    login, changed = sql.Identifier(name), []
    row = connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
    if row is None:
        connection.execute(sql.SQL("CREATE ROLE {}").format(login))
        changed.append(f"made {name}")
    if row is None or not row[0]:
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(login))
        changed.append(f"let {name} log in")
    if password:
        known = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (name,)).fetchone()
        if known is None or not fits(known[0], password):
            verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(login, sql.Literal(verifier)))
            changed.append(f"gave {name} its password")
    for role in roles:
        member = connection.execute(
            "SELECT FROM pg_auth_members m WHERE m.roleid = to_regrole(%s) AND m.member = to_regrole(%s)",
            (f'"{role}"', f'"{name}"'),
        )
        if member.fetchone() is None:
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), login))
            changed.append(f"{name} is a member of {role}")
    of_role = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = to_regrole(%s) AND setdatabase = 0"
    known = connection.execute(of_role, (f'"{name}"',)).fetchone()
    for setting, value in settings.items():
        if known is None or f"{setting}={value}" not in known[0]:
            statement = sql.SQL("ALTER ROLE {} SET {} = {}")
            connection.execute(statement.format(login, sql.Identifier(setting), sql.Literal(value)))
            changed.append(f"set {setting} for {name}")
    return changed


def main() -> None:
    """Make all of them, or none."""
    given = json.load(sys.stdin)
    with psycopg.connect(given["owner"]) as connection:
        for each in given["logins"]:
            print(*make(connection, each["url"], each["roles"], each.get("settings", {})), sep="\n", end="")


if __name__ == "__main__":
    main()
