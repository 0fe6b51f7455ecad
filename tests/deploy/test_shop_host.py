"""What only a host with database, bucket and systemd shows: jobs in their sandbox, reports, passwords, a restore."""

from __future__ import annotations

import re
import shutil
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from demo import redis as demo_redis
from demo.processes import free_port, private_directory
from opslib.storage import Place, Storage
from tests.deploy import shop_host
from tests.deploy.conftest import follow, reached_by_ssh
from tests.deploy.deploy_kit import Ansible, Tree, need
from tests.deploy.shop_host import ShopHost

pytestmark = pytest.mark.timeout(1800)

CHANGED = re.compile(r"changed=[1-9]\d* .*failed=0")
UNCHANGED = re.compile(r"changed=0 .*failed=0")
GROUPS = ("boards", "reports")
SECRETS = (
    "owner-secret",
    "exporter-secret",
    "jobs-secret",
    "read-secret",
    "write-secret",
    "grafana-secret",
    "admin-secret",
)


@pytest.fixture(scope="module")
def queues(debian_redis: Path) -> Iterator[str]:
    """The Redis of the queues, as `127.0.0.1:PORT/0`."""
    with private_directory() as folder, demo_redis.redis_server(folder, debian_redis) as server:
        yield f"127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def shop(ansible: Ansible, debian: Path, release: Path, rclone_s3: Place, queues: str) -> Iterator[ShopHost]:
    """The host, after site.yml."""
    need("systemd-nspawn", "nsenter", "ssh", "ssh-keygen", "openssl")
    tree, port = Tree("shop1", ansible.home / "shop1", free_port()), free_port()
    key = ansible.home / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, tree.path, ignore_errors=True)
        shop_host.installed(debian, tree, port)
        shop_host.certificate(tree)
        ssh = reached_by_ssh(tree, key)
        stack.enter_context(tree.booted())
        shop_host.database(tree, port)
        host = ShopHost(tree, ansible, ssh, shop_host.variables(release, port, queues, rclone_s3), port)
        host.play("site.yml", groups=GROUPS)
        tree.until(tree.ready, 120)
        yield host


def test_site_again(shop: ShopHost) -> None:
    """Nothing changes, nothing differs, no secret is shown; Grafana, which Debian has not, counts as not run."""
    for more in ("--diff", "--check"):
        said = shop.play("site.yml", "--diff", more, groups=GROUPS)
        assert UNCHANGED.search(said), said[-5000:]
        assert "+++" not in said
        assert "grafana: not run, because shop1 knows no package of that name: set grafana_repository" in said
        assert "ignored=1" in said.split("PLAY RECAP")[1]
        assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"report_site_certificate": None}, "missing required arguments: report_site_certificate"),
        ({"report_site_users": None}, "missing required arguments: report_site_users"),
        ({"report_site_users": {}}, "users: 0"),
        ({"report_site_users": {"anna": "site-secret"}}, "without a hash as `openssl passwd -6` makes it: anna"),
        ({"report_site_key": "/etc/ssl/private/none.key"}, "not there: /etc/ssl/private/none.key"),
        ({"grafana_admin_password": None}, "missing required arguments: grafana_admin_password"),
        ({"grafana_admin_password": ""}, "empty: admin-password"),
        ({"grafana_database_url": "postgresql://g:x@db/shop?sslmode=prefer"}, "not prefer"),
        ({"grafana_repository": "deb https://apt.example stable main"}, "come together or not at all"),
        ({"bitloot_ops_jobs_queues": {"report": 0}}, "queues of jobs: ['report']"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_missing_is_named(shop: ShopHost, given: dict[str, object], named: str) -> None:
    """Before anything is changed."""
    said = shop.play("site.yml", groups=GROUPS, check=False, **given)
    assert named in re.sub(r"\s+", " ", said), said[-3000:]
    assert "changed=0" in said.split("PLAY RECAP")[1]


def test_jobs_work_in_their_sandbox(shop: ShopHost) -> None:
    """A backup, its proof and a drill on a throw-away server, all by the hardened unit; and a second time."""
    shop.add_orders(10)
    for job in ("backup-database", "verify-backup", "restore-drill") * 2:
        shop.job(job)
    assert "yes" in shop.opsctl("backups", "list", "--csv").splitlines()[1]
    assert shop.tree.run("ls", "-A", "/var/cache/bitloot-ops") == ""
    assert shop.tree.show("bitloot-jobs.service", "ProtectSystem") == "strict"
    running = shop.tree.run("cat", f"/proc/{shop.tree.show('bitloot-jobs.service', 'MainPID')}/cmdline")
    assert running.split("\0")[-5:-1] == ["--concurrency", "default=2", "--concurrency", "reports=1"]


def test_reports_are_served(shop: ShopHost) -> None:
    """What the job made is there for who has the password, over TLS; nobody else sees anything."""
    anna = ("anna", "site-secret")
    for _ in range(2):
        shop.job("daily-report")
    trusted = ssl.create_default_context(cafile=str(shop.tree.path / "etc/ssl/reports.pem"))
    with httpx.Client(base_url=f"https://{shop.variables['report_site_listen']}", verify=trusted) as site:
        calendar = site.get("/", auth=anna)
        (place,) = set(re.findall(r'href="(\d{4}/\d\d/\d\d)/', calendar.text))
        day = site.get(f"/{place}/", auth=anna)
        assert "<title>" in day.text
        assert "default-src 'none'" in day.headers["Content-Security-Policy"]
        assert day.headers["X-Content-Type-Options"] == "nosniff"
        assert site.get(f"/{place}", auth=anna).headers["Location"] == f"/{place}/"
        for path in ("/", f"/{place}/", f"/{place}/orders.csv", "/index.json"):
            assert site.get(path).status_code == 401
            assert site.get(path, auth=("anna", "wrong")).status_code == 401
        assert site.get(f"/{place[:4]}/", auth=anna).status_code in {403, 404}, "no listing"
        assert site.get("/.index.html.part", auth=anna).status_code == 404
        assert site.post("/", auth=anna).status_code == 403
    assert not (shop.tree.path / "etc/nginx/sites-enabled/default").exists()
    reports = shop.tree.path / "var/lib/bitloot-ops/reports"
    assert {stat.S_IMODE(one.stat().st_mode) & 0o007 for one in reports.rglob("*")} == {0}


def test_the_applications_migrations(shop: ShopHost) -> None:
    """Around them the contract steps aside and comes back; what no longer fits fails the pipeline by name."""
    alter = 'ALTER TABLE orders ALTER COLUMN "totalCrypto" TYPE numeric(30, 9)'
    assert "missing required arguments: phase" in shop.play("contract.yml", check=False)
    assert "value of phase must be one of: before, after" in shop.play("contract.yml", check=False, phase="now")
    with psycopg.connect(shop.dsn(), autocommit=True) as owner:
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            owner.execute(alter)
        assert CHANGED.search(shop.play("contract.yml", phase="before"))
        assert UNCHANGED.search(shop.play("contract.yml", phase="before"))
        owner.execute(alter)
        assert CHANGED.search(shop.play("contract.yml", phase="after"))
        assert UNCHANGED.search(shop.play("contract.yml", phase="after"))
        shop.play("contract.yml", phase="before")
        owner.execute("ALTER TABLE orders RENAME COLUMN email TO mail")
        failed = shop.play("contract.yml", check=False, phase="after")
        assert re.search(r"view orders: .*column .*email", failed), failed[-3000:]
        assert "failed=1" in failed
        owner.execute("ALTER TABLE orders RENAME COLUMN mail TO email")
        assert CHANGED.search(shop.play("contract.yml", phase="after"))
    assert "the contract holds" in shop.opsctl("contract", "check")


def test_rotated_passwords(shop: ShopHost) -> None:
    """By RotateSecrets old passwords end, on a server that asks for them (scram-sha-256), and the services go on."""
    old = {login: f"{login}:{login.split('_')[0]}-secret" for login in ("exporter_1", "jobs_1", "grafana_1")}
    for login in old.values():
        psycopg.connect(shop.dsn(login=login)).close()
    named = [f"bitloot_ops_{service}_database_url" for service in ("exporter", "jobs")] + ["grafana_database_url"]
    for name in named:
        shop.variables[name] = shop.variables[name].replace("-secret", "-rotated")
    follow("RotateSecrets", shop.ansible, shop.ssh, shop.variables)
    for login in old.values():
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(shop.dsn(login=login))
        psycopg.connect(shop.dsn(login=login.replace("-secret", "-rotated"))).close()
    shop.tree.until(shop.tree.ready, 60)
    shop.job("backup-database")


def test_restore(shop: ShopHost, rclone_s3: Place) -> None:
    """A lost database and lost keys come back by restore.yml, which does nothing unless the database is named."""
    bucket = Storage(rclone_s3)
    shop.add_orders(250)
    keys = {f"orders/{number:03}/key.txt": f"KEY-{number}".encode() for number in range(20)}
    for key, content in keys.items():
        bucket.put(key, content)
    for job in ("replicate-objects", "backup-database"):
        shop.job(job)
    rows = shop.orders()
    running = shop.tree.show("bitloot-jobs.service", "MainPID")
    for given, named in (
        ({"restore_reason": "lost"}, "missing required arguments: restore_confirm"),
        ({"restore_reason": "lost", "restore_confirm": "shop"}, "`-e restore_confirm=bitloot` (you said shop)"),
        ({"restore_confirm": "bitloot"}, "missing required arguments: restore_reason"),
    ):
        said = shop.play("restore.yml", check=False, **given)
        assert named in re.sub(r"\s+", " ", said), said[-3000:]
    assert shop.tree.show("bitloot-jobs.service", "MainPID") == running

    shop_host.sql(shop.tree, shop.port, "DROP DATABASE bitloot WITH (FORCE)")
    bucket.delete_many(keys)
    asked = {"restore_confirm": "bitloot", "restore_reason": "the disk died", "restore_objects": True}
    said = shop.play("restore.yml", **asked)
    assert shop.orders() == rows
    assert {key: bucket.get(key) for key in keys} == keys
    assert not [secret for secret in (*SECRETS, "-rotated") if secret in said]
    shop.tree.until(shop.tree.ready, 60)
    shop.job("backup-database")
    assert "the disk died" in shop.opsctl("audit", "list", "--action", "runbook.run", "--json")

    # Once more, onto what is alive: nobody is asked twice, and what was live is kept under another name.
    shop.add_orders(1)
    shop.play("restore.yml", **asked)
    assert shop.orders() == rows
    with psycopg.connect(shop.dsn("postgres")) as admin:
        kept = admin.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'bitloot_lost_%'").fetchone()
    assert kept == (1,)
    assert not list((shop.tree.path / "run").rglob(".pgpass"))
