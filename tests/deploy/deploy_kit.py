"""Hosts made of nothing: a Debian tree by debootstrap, entered as a chroot or booted with its own systemd."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,openssh-server,procps"


UP = {"starting", "running", "degraded"}
"""What systemd says of itself once it can be asked."""


def need(*programs: str) -> None:
    """Say that a test is not run, where it cannot be."""
    if os.geteuid() != 0:
        pytest.skip("not run: takes root")
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not run: {', '.join(missing)} missing")


@dataclass
class Tree:
    """One host.

    Attributes:
        name: Its name in inventories.
        path: The tree.
        port: Where its exporter answers; the network is the machine's own.
    """

    name: str
    path: Path
    port: int
    _booted: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def entered(self) -> Iterator[Self]:
        """With what a chroot lacks."""
        subprocess.run(["mount", "-t", "proc", "proc", str(self.path / "proc")], check=True)
        try:
            yield self
        finally:
            subprocess.run(["umount", "--lazy", str(self.path / "proc")], check=True)

    @contextlib.contextmanager
    def booted(self) -> Iterator[Self]:
        """With its own systemd as process 1, until the block ends."""
        command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", f"--directory={self.path}"]
        with (self.path.parent / f"{self.name}.log").open("wb") as log:
            self._booted = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.until(lambda: self.run("systemctl", "is-system-running", check=False).strip() in UP, 180)
            yield self
        finally:
            leader = self.leader()
            if leader is not None:
                subprocess.run(["kill", "-s", "RTMIN+4", str(leader)], check=False)  # systemd: power off
            try:
                self._booted.wait(30)
            except subprocess.TimeoutExpired:
                self._booted.kill()
                self._booted.wait(10)
            self._booted = None

    def leader(self) -> int | None:
        """Its process 1, as this machine numbers it."""
        assert self._booted is not None
        children = Path(f"/proc/{self._booted.pid}/task/{self._booted.pid}/children")
        found = children.read_text().split() if children.exists() else []
        return int(found[0]) if found else None

    def run(self, *words: str, check: bool = True) -> str:
        """A command inside of the booted tree; what it printed."""
        leader = self.leader()
        if leader is None:
            assert not check, f"{self.name} is not up"
            return ""
        # PATH: this machine's names other folders.
        command = ["nsenter", "--all", f"--target={leader}", "--", "/usr/bin/env", "PATH=/usr/bin:/usr/sbin", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, what: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={what}", unit).strip()

    def ready(self) -> bool:
        """Does its exporter answer 200 on /readyz?"""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def until(self, condition: Any, seconds: float) -> float:
        """Wait for it; the seconds it took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, f"{self.name}: not within {seconds} s; {self.journal()}"
            time.sleep(0.1)
        return time.monotonic() - started

    def journal(self) -> str:
        """What its services said."""
        return self.run("journalctl", "--no-pager", "--lines=60", "--unit=bitloot-*", check=False)

    def release(self) -> str:
        """The release it runs."""
        return (self.path / "opt/bitloot-ops/current").readlink().name


@dataclass
class Ansible:
    """The programs, in an environment of their own.

    Attributes:
        folder: Of the programs.
        home: Of whoever runs them.
    """

    folder: Path
    home: Path

    def environment(self) -> dict[str, str]:
        """What they run in."""
        return {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *words: str, check: bool = True) -> str:
        """Run one in ansible/; what it printed."""
        done = subprocess.run(
            words,
            cwd=ROOT / "ansible",
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert not check or done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def play(
        self,
        book: str,
        hosts: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any],
        *more: str,
        groups: Sequence[str] = (),
        check: bool = True,
    ) -> str:
        """Run a playbook on hosts of the group `ops` and others: each a mapping of its variables, `name` among them."""
        path = self.inventory(hosts, variables, groups)
        return self.run("ansible-playbook", "-i", str(path), book, *more, check=check)

    def inventory(
        self, hosts: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], groups: Sequence[str] = ()
    ) -> Path:
        """Write an inventory."""
        path = self.home / "hosts.json"
        listed = {str(host["name"]): {key: value for key, value in host.items() if key != "name"} for host in hosts}
        others = {group: {"hosts": {name: {} for name in listed}} for group in groups}
        path.write_text(json.dumps({"ops": {"hosts": listed, "vars": dict(variables)}, **others}))
        path.chmod(0o600)
        return path


class Probe:
    """Asks a host whether it is ready, again and again, while the block runs."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.asked = self.failed = 0

    def _ask(self) -> None:
        while not self._stop.wait(0.1):
            self.asked += 1
            self.failed += not self._tree.ready()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
