"""What the tests of the deployment share: programs, an empty Debian, a release, and servers to work with."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import app_schema, postgres
from demo import redis as demo_redis
from demo.processes import free_port, private_directory
from opslib.areas import runbooks
from tests.acceptance.rehearsal import record
from tests.deploy.deploy_kit import PACKAGES, ROOT, Ansible, Tree, need

CACHE = ROOT / ".cache"


@pytest.fixture(scope="session")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    """Ansible and its linter, installed on demand by the hashes of requirements/ansible.txt."""
    lock = ROOT / "requirements/ansible.txt"
    folder = CACHE / f"ansible-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "--requirement", str(lock)], check=True)
        (folder / "complete").touch()
    return Ansible(folder / "bin", tmp_path_factory.mktemp("ansible"))


@pytest.fixture(scope="session")
def debian() -> Path:
    """An empty Debian 12, made once."""
    need("debootstrap", "mount")
    folder = CACHE / f"debian-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]}"
    if not folder.exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(making)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"not run: debootstrap: {done.stdout[-300:]}{done.stderr[-300:]}")
        making.rename(folder)
    return folder


@pytest.fixture
def tree(debian: Path, tmp_path: Path) -> Callable[[str], Tree]:
    """Makes a fresh host."""

    def make(name: str) -> Tree:
        path = tmp_path / name
        subprocess.run(["cp", "--archive", "--reflink=auto", str(debian), str(path)], check=True)
        return Tree(name, path, free_port())

    return make


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a release, with every wheel a host needs."""
    folder = tmp_path_factory.mktemp("release")
    subprocess.run([str(ROOT / ".ci/release"), str(folder), "one"], check=True, env={"PATH": "/usr/bin:/bin"})
    return folder / "bitloot-ops-one.tar.gz"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Whoever has it may log in where `reached_by_ssh` says so."""
    need("ssh", "ssh-keygen")
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def variables(release: Path, monkeypatch: pytest.MonkeyPatch, debian_redis: Path) -> Iterator[dict[str, Any]]:
    """What every inventory must say, with a PostgreSQL and a Redis behind it that listen on loopback."""
    port = free_port()
    monkeypatch.setenv("PGPORT", str(port))
    monkeypatch.setitem(postgres.SETTINGS, "listen_addresses", "127.0.0.1")
    monkeypatch.setitem(postgres.SETTINGS, "port", str(port))
    with (
        private_directory() as one,
        private_directory() as two,
        postgres.postgres(one) as server,
        demo_redis.redis_server(two, debian_redis) as redis,
    ):
        with server.connect() as admin:
            admin.execute("CREATE DATABASE bitloot")
        app_schema.create(server.dsn("bitloot"))
        database = f"127.0.0.1:{port}/bitloot"
        yield {
            "bitloot_ops_release_file": str(release),
            "bitloot_ops_owner_database_url": f"postgresql://postgres:owner-secret@{database}",
            "bitloot_ops_exporter_database_url": f"postgresql://exporter_1:exporter-secret@{database}",
            "bitloot_ops_jobs_database_url": f"postgresql://jobs_1:jobs-secret@{database}",
            "bitloot_ops_redis_url": f"redis://ops_read:read-secret@127.0.0.1:{redis.port}/0",
            "redis_acl_admin_url": f"redis://127.0.0.1:{redis.port}/0",
            "redis_acl_write_password": "write-secret",
        }


def chroot(one: Tree) -> dict[str, Any]:
    """How Ansible reaches a tree that is not booted."""
    return {
        "name": one.name,
        "ansible_host": str(one.path),
        "ansible_connection": "community.general.chroot",
        "bitloot_ops_exporters": [
            {"name": "main", "listen": f"127.0.0.1:{one.port}", "subjects": ["queues", "ledger", "runs"]}
        ],
    }


def reached_by_ssh(one: Tree, key: Path) -> dict[str, Any]:
    """Let its sshd listen on a port of its own, to one key."""
    port = free_port()
    (one.path / "etc/ssh/sshd_config.d/test.conf").write_text(f"Port {port}\nListenAddress 127.0.0.1\n")
    keys = one.path / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    (keys / "authorized_keys").write_bytes(key.with_suffix(".pub").read_bytes())
    exporters = chroot(one)["bitloot_ops_exporters"]
    return {
        "name": one.name,
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_user": "root",
        "ansible_become": False,
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlMaster=no",
        "bitloot_ops_exporters": exporters,
    }


def follow(name: str, ansible: Ansible, host: dict[str, Any], variables: dict[str, Any]) -> None:
    """Do what the page says."""
    environment = ansible.environment() | {
        "ANSIBLE": str(ROOT / "ansible"),
        "INVENTORY": str(ansible.inventory([host], variables)),
        "HOST": str(host["name"]),
    }
    taken: list[float] = []
    for step in runbooks.read(name).chosen(None):
        started = time.monotonic()
        code, output = runbooks.execute(step.script, environment, lambda _: None)
        assert code == 0, output[-4000:]
        taken.append(time.monotonic() - started)
    record(name, taken)
