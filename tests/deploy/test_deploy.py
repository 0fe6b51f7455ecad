"""deploy.yml over sshd: two booted hosts, one release after the other, one of them bad."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.deploy.conftest import chroot, follow, reached_by_ssh
from tests.deploy.deploy_kit import Ansible, Probe, Tree, need

pytestmark = pytest.mark.timeout(1200)


def test_deploy(
    ansible: Ansible, tree: Callable[[str], Tree], variables: dict[str, Any], key: Path, tmp_path: Path
) -> None:
    """A good release reaches both; a bad one is taken back on the first host, and the second never notices."""
    need("systemd-nspawn", "nsenter")
    release = Path(str(variables["bitloot_ops_release_file"]))
    trees = [tree("shop1"), tree("shop2")]
    with ExitStack() as stack:
        for one in trees:
            stack.enter_context(one.entered())
        ansible.play("site.yml", [chroot(one) for one in trees], variables)
    hosts = [reached_by_ssh(one, key) for one in trees]
    with ExitStack() as stack:
        for one in trees:
            stack.enter_context(one.booted())
        for one in trees:
            one.until(one.ready, 60)
        second = variables | {"bitloot_ops_release_file": str(copied(release, tmp_path, "two"))}
        with Probe(trees[1]) as steady:
            ansible.play("deploy.yml", hosts[:1], second)
            assert [one.release() for one in trees] == ["two", "one"]
        assert (steady.failed, steady.asked > 10) == (0, True)
        ansible.play("deploy.yml", hosts, second)
        assert [one.release() for one in trees] == ["two", "two"]

        bad = variables | {
            "bitloot_ops_release_file": str(copied(release, tmp_path, "three", breaking=True)),
            "bitloot_ops_ready_seconds": 8,
        }
        with Probe(trees[1]) as steady:
            said = ansible.play("deploy.yml", hosts, bad, check=False)
        assert "shop1 did not become ready with three: back on two" in said, said[-4000:]
        assert "shop2" not in said.split("PLAY RECAP")[1] or "shop2" in said.split("NO MORE HOSTS")[0]
        assert [one.release() for one in trees] == ["two", "two"]
        assert (steady.failed, steady.asked > 50) == (0, True)
        trees[0].until(trees[0].ready, 10)
        assert not (trees[0].path / "opt/bitloot-ops/releases/three").exists()
        assert not (trees[1].path / "opt/bitloot-ops/releases/three").exists()

        ansible.play("rollback.yml", hosts, variables)
        assert [one.release() for one in trees] == ["one", "one"]
        ansible.play("rollback.yml", hosts, variables)  # and forth: what was left is the one before
        assert [one.release() for one in trees] == ["two", "two"]
        for one in trees:
            one.until(one.ready, 10)


def test_lost_host_and_rotated_secrets(
    ansible: Ansible, tree: Callable[[str], Tree], variables: dict[str, Any], key: Path
) -> None:
    """An empty Debian becomes a host by following LostHost; by RotateSecrets old passwords end, and it goes on."""
    need("systemd-nspawn", "nsenter")
    one = tree("shop1")
    host = reached_by_ssh(one, key)
    redis = str(variables["bitloot_ops_redis_url"])
    with one.booted():
        follow("LostHost", ansible, host, variables)
        assert one.ready()
        assert knows(redis)
        pid = one.show("bitloot-exporter@main.service", "MainPID")
        verifiers = passwords(variables)
        new = {
            name: value.replace("-secret", "-rotated") if isinstance(value, str) and "owner" not in name else value
            for name, value in variables.items()
        }
        follow("RotateSecrets", ansible, host, new)
        assert one.ready()
        assert one.show("bitloot-exporter@main.service", "MainPID") != pid
        assert knows(str(new["bitloot_ops_redis_url"]))
        assert not knows(redis)
        assert not verifiers & passwords(variables)


def knows(url: str) -> bool:
    """Does Redis let this user in?"""
    with Redis.from_url(url) as client:
        try:
            return bool(client.exists("bull:q:meta") == 0)
        except AuthenticationError:
            return False


def passwords(variables: dict[str, Any]) -> set[str]:
    """What PostgreSQL keeps of the services' passwords."""
    with psycopg.connect(str(variables["bitloot_ops_owner_database_url"])) as connection:
        rows = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname IN ('exporter_1', 'jobs_1')")
        return {row[0] for row in rows}


def copied(release: Path, folder: Path, name: str, *, breaking: bool = False) -> Path:
    """The release under another name, on demand with an exporter that does not come up."""
    work = folder / name
    with tarfile.open(release) as packed:
        packed.extractall(work, filter="data")
    if breaking:
        (wheel,) = (work / "own").glob("*.whl")
        with zipfile.ZipFile(wheel) as whole:
            content = {one: whole.read(one) for one in whole.namelist()}
        content["opslib/server.py"] = b"raise RuntimeError('a bad release')\n"
        with zipfile.ZipFile(wheel, "w") as broken:
            for one, text in content.items():
                broken.writestr(one, text)
    path = folder / f"bitloot-ops-{name}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as packed:
        for one in sorted(work.iterdir()):
            packed.add(one, one.name)
    return path
