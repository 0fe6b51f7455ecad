"""Creates the application's own tables: what its 42 migrations leave behind, as far as anyone here reads it."""

from __future__ import annotations

from importlib import resources

import psycopg


def create(dsn: str) -> None:
    """Run `app_schema.sql` in an empty database, in one transaction."""
    sql = resources.files("demo").joinpath("app_schema.sql").read_text(encoding="utf-8")
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.encode())
