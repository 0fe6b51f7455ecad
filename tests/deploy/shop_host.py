"""One booted host that carries everything: Debian's PostgreSQL, which asks for passwords, our services, the site."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from demo import app_schema
from demo.processes import free_port
from opslib.storage import Place
from tests.deploy.deploy_kit import ROOT, Ansible, Tree

POSTGRES = "15"
"""Debian 12's major; its pg_hba.conf asks for scram-sha-256 over TCP."""


@dataclass(frozen=True)
class ShopHost:
    """It.

    Attributes:
        tree: The host.
        ansible: What plays on it.
        ssh: How Ansible reaches it.
        variables: What its inventory says.
        port: Of its PostgreSQL, on loopback.
    """

    tree: Tree
    ansible: Ansible
    ssh: dict[str, Any]
    variables: dict[str, Any]
    port: int

    def dsn(self, database: str = "bitloot", login: str = "postgres:owner-secret") -> str:
        """Its PostgreSQL, by default as the superuser."""
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def play(self, book: str, *more: str, groups: Sequence[str] = (), check: bool = True, **variables: Any) -> str:
        """Run a playbook on it; what was said. A variable that is None is not said at all."""
        known = {name: value for name, value in (self.variables | variables).items() if value is not None}
        return self.ansible.play(book, [self.ssh], known, *more, groups=groups, check=check)

    def opsctl(self, *words: str, check: bool = True) -> str:
        """A command, as the superuser of its database; what it printed."""
        command = [sys.executable, "-m", "opsctl.cli", *words]
        environment = {"DATABASE_URL": self.dsn(), "PATH": os.environ["PATH"], **self.variables["bitloot_ops_settings"]}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.tree.journal()
        return done.stdout + done.stderr

    def job(self, name: str) -> None:
        """Have the unit run it, which must succeed."""
        self.opsctl("jobs", "enqueue", name, "--wait", "--yes", "--reason", "rehearsal")

    def add_orders(self, number: int) -> None:
        """Somebody buys."""
        with psycopg.connect(self.dsn()) as connection:
            connection.execute(
                """INSERT INTO orders (id, email, status, "totalCrypto", "createdAt")
                   SELECT gen_random_uuid(), 'anna' || n || '@example.com', 'paid', n, now() AT TIME ZONE 'UTC'
                   FROM generate_series(1, %s) n""",
                (number,),
            )

    def orders(self) -> list[tuple[Any, ...]]:
        """All there are."""
        with psycopg.connect(self.dsn()) as connection:
            return connection.execute("SELECT * FROM orders ORDER BY id").fetchall()


def installed(debian: Path, tree: Tree, port: int) -> None:
    """A copy of the empty Debian, with PostgreSQL on that port from the package sources the machine itself uses."""
    subprocess.run(["cp", "--archive", "--reflink=auto", str(debian), str(tree.path)], check=True)
    (tree.path / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    # Nothing is to run in a tree that is only entered.
    (tree.path / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (tree.path / "usr/sbin/policy-rc.d").chmod(0o755)
    script = f"""apt-get -qq update && apt-get -qq install --no-install-recommends --yes postgresql-{POSTGRES} &&
        pg_conftool {POSTGRES} main set port {port} && rm /usr/sbin/policy-rc.d"""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["chroot", str(tree.path), "sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"not run: PostgreSQL {POSTGRES} cannot be installed: {done.stdout[-300:]}{done.stderr[-300:]}")


def database(tree: Tree, port: int) -> None:
    """Give the booted host's PostgreSQL the application's database, and its superuser a password."""
    tree.until(lambda: tree.show(f"postgresql@{POSTGRES}-main.service", "ActiveState") == "active", 120)
    sql(tree, port, "ALTER ROLE postgres PASSWORD 'owner-secret'", "CREATE DATABASE bitloot")
    app_schema.create(f"postgresql://postgres:owner-secret@127.0.0.1:{port}/bitloot")


def sql(tree: Tree, port: int, *statements: str) -> None:
    """Tell its PostgreSQL, over the socket, where nobody is asked for a password."""
    commands = [word for statement in statements for word in ("-c", statement)]
    tree.run("runuser", "-u", "postgres", "--", "psql", "-X", "-p", str(port), "-v", "ON_ERROR_STOP=1", *commands)


def certificate(tree: Tree) -> None:
    """A certificate of its own for 127.0.0.1."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=reports", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += [
        "-keyout",
        str(tree.path / "etc/ssl/private/reports.key"),
        "-out",
        str(tree.path / "etc/ssl/reports.pem"),
    ]
    subprocess.run(command, check=True, capture_output=True)


def variables(release: Path, port: int, queues: str, bucket: Place) -> dict[str, Any]:
    """What its inventory says.

    Args:
        release: To install.
        port: Of its PostgreSQL.
        queues: The Redis, `host:port/number`.
        bucket: Where backups go.
    """
    server = f"127.0.0.1:{port}"
    hashed = subprocess.run(["openssl", "passwd", "-6", "site-secret"], capture_output=True, text=True, check=True)
    return {
        "bitloot_ops_release_file": str(release),
        "bitloot_ops_owner_database_url": f"postgresql://postgres:owner-secret@{server}/bitloot",
        "bitloot_ops_exporter_database_url": f"postgresql://exporter_1:exporter-secret@{server}/bitloot",
        "bitloot_ops_jobs_database_url": f"postgresql://jobs_1:jobs-secret@{server}/bitloot",
        "restore_database_url": f"postgresql://postgres:owner-secret@{server}/postgres",
        "grafana_database_url": f"postgresql://grafana_1:grafana-secret@{server}/bitloot?sslmode=require",
        "grafana_admin_password": "admin-secret",
        "bitloot_ops_redis_url": f"redis://ops_read:read-secret@{queues}",
        "redis_acl_admin_url": f"redis://{queues}",
        "redis_acl_write_password": "write-secret",
        "bitloot_ops_jobs_queues": {"default": 2, "reports": 1},
        "report_site_listen": f"127.0.0.1:{free_port()}",
        "report_site_certificate": "/etc/ssl/reports.pem",
        "report_site_key": "/etc/ssl/private/reports.key",
        "report_site_users": {"anna": hashed.stdout.strip()},
        "bitloot_ops_settings": {
            "R2_ENDPOINT": bucket.endpoint,
            "R2_BUCKET": bucket.bucket,
            "R2_ACCESS_KEY_ID": bucket.access_key_id.get_secret_value(),
            "R2_SECRET_ACCESS_KEY": bucket.secret_access_key.get_secret_value(),
            "OPS_REPORT_FOLDER": "/var/lib/bitloot-ops/reports",
        },
    }
