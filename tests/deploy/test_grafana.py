"""The role `grafana` as far as it runs without a package of Grafana: what it writes, and what it says to the API."""

from __future__ import annotations

import base64
import json
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import chroot
from tests.deploy.deploy_kit import ROOT, Ansible, Tree

pytestmark = pytest.mark.timeout(600)

VARIABLES = {
    "grafana_database_url": "postgresql://grafana_1:app-secret@db.example/shop?sslmode=require",
    "grafana_ops_database_url": "postgresql://grafana_2:ops-secret@db2.example:6432/ops",
    "grafana_admin_password": "admin-secret",
}
SETTINGS = {
    "GF_SERVER_HTTP_ADDR": "127.0.0.1",
    "GF_SERVER_HTTP_PORT": "3000",
    "GF_SECURITY_ADMIN_PASSWORD__FILE": "/etc/grafana/secrets/admin-password",
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GRAFANA_PROMETHEUS_URL": "http://127.0.0.1:9090",
    "GRAFANA_APP_DB_HOST": "db.example:5432",
    "GRAFANA_APP_DB_NAME": "shop",
    "GRAFANA_APP_DB_USER": "grafana_1",
    "GRAFANA_APP_DB_SSLMODE": "require",
    "GRAFANA_OPS_DB_HOST": "db2.example:6432",
    "GRAFANA_OPS_DB_NAME": "ops",
    "GRAFANA_OPS_DB_USER": "grafana_2",
    "GRAFANA_OPS_DB_SSLMODE": "verify-full",
}


@pytest.fixture
def part(tmp_path: Path) -> Callable[[str], str]:
    """Makes a playbook of one part of the role."""
    (tmp_path / "group_vars").symlink_to(ROOT / "ansible/group_vars")

    def make(name: str) -> str:
        tasks = [{"ansible.builtin.include_role": {"name": "grafana", "tasks_from": name}}]
        (tmp_path / "play.yml").write_text(yaml.dump([{"hosts": "ops", "tasks": tasks}]))
        return str(tmp_path / "play.yml")

    return make


def test_what_it_writes(ansible: Ansible, tree: Callable[[str], Tree], part: Callable[[str], str]) -> None:
    """Every name the data sources ask for is set, every secret is a file of its group alone, every board is there."""
    one = tree("shop1")
    subprocess.run(["chroot", str(one.path), "groupadd", "--system", "grafana"], check=True)
    boards = one.path / "var/lib/grafana/dashboards/bitloot"
    boards.mkdir(parents=True)
    (boards / "gone.json").write_text("{}")
    with one.entered():
        first = ansible.play(part("config"), [chroot(one)], VARIABLES, "--diff")
        again = ansible.play(part("config"), [chroot(one)], VARIABLES, "--diff")
        tried = ansible.play(part("config"), [chroot(one)], VARIABLES, "--check", "--diff")
    assert re.search(r"changed=[1-9].*failed=0", first)
    assert re.search(r"changed=0 .*failed=0", again), again[-4000:]
    assert re.search(r"changed=0 .*failed=0", tried), tried[-4000:]
    assert "-secret" not in first.replace("grafana/secrets", "") + again + tried

    etc = one.path / "etc/grafana"
    known = dict(line.split("=", 1) for line in (etc / "bitloot.env").read_text().splitlines() if "=" in line)
    assert SETTINGS.items() <= known.items()
    text = (etc / "provisioning/datasources/bitloot.yml").read_text()
    sources = yaml.safe_load(text)["datasources"]
    asked = {value for source in sources for value in flat(source)}
    assert {name[1:] for name in asked if re.fullmatch(r"\$[A-Z_]+", name)} <= known.keys()
    files = {found[1] for name in asked if (found := re.fullmatch(r"\$__file\{(.+)\}", name))}
    assert {(one.path / name[1:]).read_text() for name in files} == {"app-secret", "ops-secret"}
    for secret in (etc / "secrets").iterdir():
        assert stat.S_IMODE(secret.stat().st_mode) == 0o640
        assert secret.stat().st_gid == (etc / "secrets").stat().st_gid != 0
    (provider,) = yaml.safe_load((etc / "provisioning/dashboards/bitloot.yml").read_text())["providers"]
    assert one.path / provider["options"]["path"][1:] == boards
    ours = {path.name: path.read_text() for path in (ROOT / "grafana/dashboards").glob("*.json")}
    assert {path.name: path.read_text() for path in boards.iterdir()} == ours
    used = {uid for board in ours.values() for uid in re.findall(r'"uid": "(bitloot-\w+)"', board)}
    assert used & {source["uid"] for source in sources} == {source["uid"] for source in sources}
    dropped = one.path / "etc/systemd/system/grafana-server.service.d/bitloot.conf"
    assert dropped.read_text() == "[Service]\nEnvironmentFile=/etc/grafana/bitloot.env\n"


def flat(value: object) -> Iterator[str]:
    """Every text in it."""
    if isinstance(value, dict):
        value = [*value.values()]
    for each in value if isinstance(value, list) else ():
        yield from flat(each)
    if isinstance(value, str):
        yield value


class Grafana(ThreadingHTTPServer):
    """Speaks the folder permissions API as its documentation says it, and keeps what it is told.

    Attributes:
        items: Permissions of the folder; None: there is no such folder yet.
        refuses: Status of every answer to somebody who knows the password.
        waits: Requests for the folder it answers with 404 first.
        said: The bodies it was given.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.items: list[dict[str, Any]] = [
            {"folderId": -1, "role": "Viewer", "permission": 1, "userId": 0, "teamId": 0, "inherited": False},
            {"folderId": -1, "role": "Editor", "permission": 2, "userId": 0, "teamId": 0, "inherited": False},
            {"role": "Admin", "permission": 4},
        ]
        self.refuses = 0
        self.waits = 0
        self.said: list[Any] = []


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Grafana

    def do_GET(self) -> None:
        """Health, or the permissions."""
        if self.path == "/api/health":
            self._answer(200, {"database": "ok"})
        elif self._may():
            self._answer(200, self.server.items)

    def do_POST(self) -> None:
        """All permissions anew."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._may():
            self.server.said.append(body)
            above = [{"role": "Viewer", "permission": 2, "inherited": True}, {"role": "Admin", "permission": 4}]
            self.server.items = [*body["items"], *above]
            self._answer(200, {"message": "Folder permissions updated"})

    def _may(self) -> bool:
        wanted = "Basic " + base64.b64encode(b"admin:admin-secret").decode()
        if self.headers["Authorization"] != wanted:
            self._answer(401, {"message": "Invalid username or password"})
        elif self.server.refuses:
            self._answer(self.server.refuses, {"message": "no"})
        elif self.path != "/api/folders/bitloot/permissions" or self.server.waits:
            self.server.waits -= 1
            self._answer(404, {"message": "folder not found"})
        else:
            return True
        return False

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    """A server that speaks it."""
    with Grafana() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_who_sees_the_boards(ansible: Ansible, grafana: Grafana, part: Callable[[str], str]) -> None:
    """Editors only look, too; told once; what admins have and what is inherited is no difference."""
    grafana.waits = 2
    assert "changed=1" in told(ansible, grafana, part)
    assert "changed=0" in told(ansible, grafana, part)
    both = [{"role": "Viewer", "permission": 1}, {"role": "Editor", "permission": 1}]
    assert grafana.said == [{"items": both}]
    team = [{"teamId": 7, "permission": 1}]
    assert "changed=1" in told(ansible, grafana, part, grafana_permissions=team)
    assert "changed=0" in told(ansible, grafana, part, grafana_permissions=team)
    assert grafana.said[1:] == [{"items": team}]


@pytest.mark.parametrize(
    ("status", "named"),
    [
        (401, "it keeps that of its first start"),
        (403, "make it an administrator again"),
        (500, "Status code was 500"),
    ],
)
def test_a_refusal_says_what_to_do(
    ansible: Ansible, grafana: Grafana, part: Callable[[str], str], status: int, named: str
) -> None:
    """And nothing was changed; no password is shown."""
    grafana.refuses = status
    said = told(ansible, grafana, part, grafana_admin_password="old-secret" if status == 401 else "admin-secret")
    assert named in re.sub(r"\s+", " ", said), said[-3000:]
    assert "failed=1" in said
    assert "changed=0" in said
    assert grafana.said == []
    assert "-secret" not in said


def told(ansible: Ansible, grafana: Grafana, part: Callable[[str], str], **given: Any) -> str:
    """Have the role tell it; what was said."""
    host = {"name": "here", "ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    listen = {"grafana_listen": f"127.0.0.1:{grafana.server_port}"}
    return ansible.play(part("permissions"), [host], VARIABLES | listen | given, check=False)
