"""From an empty Debian to a working host: site.yml through the real chroot connection, then its own systemd."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import chroot
from tests.deploy.deploy_kit import ROOT, Ansible, Tree, need

pytestmark = pytest.mark.timeout(900)

UNITS = ("bitloot-exporter@main.service", "bitloot-jobs.service")
SECRETS = ("owner-secret", "exporter-secret", "jobs-secret", "read-secret", "write-secret")


def test_lint(ansible: Ansible) -> None:
    """The production profile finds nothing; and it would find something."""
    said = ansible.run("ansible-lint", "--offline", "--profile=production", "--format=pep8")
    assert "Passed: 0 failure(s), 0 warning(s)" in said
    bad = ansible.home / "bad.yml"
    bad.write_text("- hosts: ops\n  tasks:\n    - command: rm x\n")
    assert "name[" in ansible.run("ansible-lint", "--offline", "--profile=production", str(bad), check=False)


@pytest.mark.parametrize("inventory", ["one", "three"])
def test_inventories(ansible: Ansible, inventory: str) -> None:
    """Each can be read, names its hosts, and every playbook fits it."""
    path = f"inventories/{inventory}/hosts.yml"
    listed = ansible.run("ansible-inventory", "-i", path, "--list")
    assert ("shop1" if inventory == "one" else "monitor1") in listed
    for book in sorted((ROOT / "ansible").glob("*.yml")):
        ansible.run("ansible-playbook", "-i", path, "--syntax-check", book.name)


def test_site(ansible: Ansible, tree: Callable[[str], Tree], variables: dict[str, Any]) -> None:
    """Applies, changes nothing the second time, has no diff; a missing secret is named before anything is done."""
    need("systemd-nspawn", "nsenter")
    one = tree("shop1")
    host = chroot(one)
    with one.entered():
        for missing in ("bitloot_ops_exporter_database_url", "bitloot_ops_redis_url", "redis_acl_write_password"):
            less = {key: value for key, value in variables.items() if key != missing}
            said = ansible.play("site.yml", [host], less, check=False)
            assert re.search(rf"missing required arguments: {missing}", said), said[-3000:]
            assert not (one.path / "opt/bitloot-ops").exists()
        first = ansible.play("site.yml", [host], variables, "--diff")
        assert re.search(r"changed=[1-9].*failed=0", first)
        second = ansible.play("site.yml", [host], variables, "--diff")
        assert re.search(r"changed=0 .*failed=0", second), second[-5000:]
        third = ansible.play("site.yml", [host], variables, "--check", "--diff")
        assert re.search(r"changed=0 .*failed=0", third), third[-5000:]
        assert "+++" not in second + third
        for text in (first, second, third):
            assert not [secret for secret in SECRETS if secret in text]
    for name in ("exporter-main.yml", "jobs.yml"):
        assert stat.S_IMODE((one.path / "etc/bitloot-ops" / name).stat().st_mode) == 0o600
    assert owners_secret(one.path) == []
    with one.booted():
        runs(one)


def runs(one: Tree) -> None:
    """Exporter and jobs are up with their real imports, under systemd's eye, and come back when they are killed."""
    one.until(one.ready, 120)
    for unit in UNITS:
        one.until(lambda unit=unit: one.show(unit, "ActiveState") == "active", 120)
        assert one.show(unit, "WatchdogUSec") == "30s"
        assert one.show(unit, "User") == "bitloot-ops"
    one.until(lambda: "jobs_started" in one.journal(), 120)
    for _ in range(2):
        comes_back(one, UNITS[0])
        one.until(one.ready, 120)
    comes_back(one, UNITS[1])
    said = one.journal()
    assert not [secret for secret in SECRETS if secret in said]
    # A stop is a drain: no unit has to be killed.
    for unit in UNITS:
        one.run("systemctl", "stop", unit)
        assert one.show(unit, "Result") == "success"


def comes_back(one: Tree, unit: str) -> None:
    """After a kill -9, within 5 s of a core to itself: systemd's pause, and the CPU its start takes."""
    before = one.show(unit, "MainPID")
    one.run("kill", "-KILL", before)
    one.until(lambda: one.show(unit, "MainPID") not in {before, "0"}, 60)
    one.until(lambda: one.show(unit, "ActiveState") == "active", 60)
    assert one.show(unit, "RestartUSec") == "1s"
    ticks = one.run("cat", f"/proc/{one.show(unit, 'MainPID')}/stat").rpartition(")")[2].split()[11:15]
    assert 1 + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") < 5


def owners_secret(path: Path) -> list[Path]:
    """Files of the host that hold the owner's password."""
    folders = [path / folder for folder in ("etc", "opt/bitloot-ops/current", "root", "var/log")]
    files = [one for folder in folders for one in folder.rglob("*") if one.is_file() and one.stat().st_size < 100_000]
    return [one for one in files if b"owner-secret" in one.read_bytes()]
