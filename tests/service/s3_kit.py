"""What the tests of jobs that use the object store share: a server, its settings, and a role's own login."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo

from demo.s3 import S3Server
from opslib import settings
from opslib.storage import Storage

LOGIN = "a_job"


def env_of(server: S3Server, bucket: str = "bitloot") -> dict[str, str]:
    """The settings of that bucket."""
    return {
        "R2_ENDPOINT": server.endpoint,
        "R2_BUCKET": bucket,
        "R2_ACCESS_KEY_ID": server.access_key_id,
        "R2_SECRET_ACCESS_KEY": server.secret_access_key,
    }


def storage_of(server: S3Server, bucket: str = "bitloot") -> Storage:
    """That bucket."""
    return Storage.of(settings.load(env_of(server, bucket)))


def empty(server: S3Server, bucket: str = "bitloot") -> None:
    """No object is left there."""
    storage = storage_of(server, bucket)
    storage.delete_many(one.key for one in storage.list(""))


def as_job(database: str) -> str:
    """The database as a job logs in: a member of `ops_jobs` and nothing else."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            f"DO $$ BEGIN CREATE ROLE {LOGIN} LOGIN IN ROLE ops_jobs; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    return make_conninfo(database, user=LOGIN)
