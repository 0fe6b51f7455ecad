"""What the tests of backups share: a database worth backing up, and jobs run against a store behind a faulty proxy."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from demo.postgres import PostgresServer
from jobs import backup_database, restore_drill, verify_backup
from opslib import settings, storage_upload
from opslib.areas import backups
from opslib.run import Progress, Run
from opslib.settings import Settings
from opslib.spec import NoParams
from opslib.storage import Place, Storage
from tests.service.faulty_proxy import FaultyProxy, faulty_proxy

SOURCE = "backup_source"
PATIENCE = 60.0
"""Longer than a store on a busy machine takes for a part; who waits for the silence itself takes less."""
PART = 5 * 1024 * 1024  # the least R2 takes, so that a small database makes several


def source(postgres_server: PostgresServer, ops_template: str) -> Iterator[str]:
    """A database whose dump takes three parts: rows that hardly compress, names and values that look like the dump."""
    with postgres_server.connect() as admin:
        admin.execute(f"CREATE DATABASE {SOURCE} TEMPLATE {ops_template}")
    with postgres_server.connect(SOURCE) as connection:
        connection.execute("CREATE ROLE backup_alice")
        connection.execute('CREATE SCHEMA "Wei rd.s"')
        connection.execute('CREATE TABLE "Wei rd.s"."T ""a" (line text, n int)')
        connection.execute('ALTER TABLE "Wei rd.s"."T ""a" OWNER TO backup_alice')
        hostile = "\n\\.\n\n\n\n-- Data for Name: x; Type: TABLE DATA\n--\n\nCOPY public.y (a) FROM stdin;\n"
        connection.execute('INSERT INTO "Wei rd.s"."T ""a" SELECT %s || n, n FROM generate_series(1, 77) n', (hostile,))
        connection.execute("CREATE TABLE noise (n int, line text)")
        connection.execute(
            """INSERT INTO noise
               SELECT n, (SELECT string_agg(md5(n || '/' || m), '') FROM generate_series(1, 40) m)
               FROM generate_series(1, 18000) n"""
        )
    yield postgres_server.dsn(SOURCE)
    with postgres_server.connect() as admin:
        admin.execute(f"DROP DATABASE {SOURCE} WITH (FORCE)")
        admin.execute("DROP ROLE backup_alice")


class Stage:
    """One bucket behind a proxy, one database, and runs of the jobs.

    Attributes:
        patience: Seconds of silence after which a run takes a request for failed.
    """

    def __init__(self, place: Place, proxy: FaultyProxy, source: str) -> None:
        self.place = place
        self.proxy = proxy
        self.storage = Storage(place)
        self.patience = PATIENCE
        self.environment = {
            "DATABASE_URL": source,
            "R2_ENDPOINT": proxy.endpoint,
            "R2_BUCKET": place.bucket,
            "R2_ACCESS_KEY_ID": place.access_key_id.get_secret_value(),
            "R2_SECRET_ACCESS_KEY": place.secret_access_key.get_secret_value(),
        }

    def settings(self, **more: str) -> Settings:
        """What a run is given."""
        return settings.load({**self.environment, **more})

    def run(self, job: str, *, cancelled: Callable[[], bool] = lambda: False, **more: str) -> Run:
        """A run of that job."""
        seen: list[Progress] = []
        return Run(7, job, self.settings(**more), None, 1, "test", seen.append, cancelled)

    def backup(self, **more: str) -> backup_database.Result:
        """Back up."""
        return backup_database.run(self.run("backup-database", **more), NoParams())

    def verify(self, *, every: bool = False, **more: str) -> verify_backup.Result:
        """Verify the newest, or all."""
        return verify_backup.run(self.run("verify-backup", **more), verify_backup.Params(every=every))

    def drill(self, **more: str) -> restore_drill.Result:
        """Restore the newest and compare."""
        return restore_drill.run(self.run("restore-drill", **more), NoParams())

    def calm(self) -> None:
        """No more faults."""
        self.proxy.rule = lambda _method, _target: None
        self.proxy.before = lambda _method, _target: None

    def proven_after(self, before: int) -> None:
        """An undisturbed run makes one more backup, which is proven with every other, and nothing dangles."""
        self.calm()
        self.backup()
        found = backups.listing(self.storage)
        assert len(found) == before + 1
        assert all(one.has_manifest for one in found)
        assert self.verify(every=True).verified == [one.key for one in found]
        assert len(self.storage.list("")) == 2 * len(found)
        assert self.storage.pending("") == ()


def stage(s3: Place, source: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The three servers in turn; a request is made twice; parts are small."""
    monkeypatch.setattr(storage_upload, "PART_BYTES", PART)
    place = Storage.of.__func__  # type: ignore[attr-defined]

    with faulty_proxy(s3.endpoint) as proxy:
        made = Stage(s3, proxy, source)

        def hasty(kind: type[Storage], given: Settings) -> Storage:
            named: Storage = place(kind, given)
            return kind(dataclasses.replace(named.place, region=s3.region), timeout=made.patience, attempts=2)

        monkeypatch.setattr(Storage, "of", classmethod(hasty))
        yield made


@contextmanager
def held(stage: Stage, part: str) -> Iterator[threading.Event]:
    """Let every PUT for `part` wait until the event is set."""
    reached, go = threading.Event(), threading.Event()

    def wait(method: str, target: str) -> None:
        if method == "PUT" and part in target:
            reached.set()
            go.wait(PATIENCE)

    stage.proxy.before = wait
    failures: list[BaseException] = []

    def run() -> None:
        try:
            stage.backup()
        except BaseException as exc:  # noqa: BLE001 - raised in the test's own thread
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert reached.wait(PATIENCE)
        yield go
    finally:
        go.set()
        thread.join()
        stage.calm()
    if failures:
        raise failures[0]
