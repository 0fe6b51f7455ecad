"""The host that watches: Prometheus, Alertmanager and Debian's exporters, from nothing to the first alert."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from demo.processes import free_port
from tests.deploy.conftest import chroot, reached_by_ssh
from tests.deploy.deploy_kit import ROOT, Ansible, Tree, need

pytestmark = pytest.mark.timeout(1800)

GROUPS = ("watched", "monitors")
DAEMONS = (
    "prometheus",
    "prometheus-alertmanager",
    *(f"prometheus-{what}-exporter" for what in ("node", "redis", "postgres")),
)
READER = ("anna", "reader-secret")
HASH = "$2b$04$BGQWoQs3/dRFSyXc.1NM7.5XrJz8.WYzxZ5pXayed30KOS.aX6MUi"
SECRETS = (
    READER[1],
    HASH,
    "watcher-secret",
    "token-secret",
    "hook-secret",
    "beat-secret",
    "pager-secret",
    "read-secret",
)


@pytest.fixture
def watching(variables: dict[str, Any]) -> dict[str, Any]:
    """What a host that watches must be told, beside the rest; its ports are this machine's own."""
    database = str(variables["bitloot_ops_exporter_database_url"]).rpartition("@")[2]
    return variables | {
        "bitloot_ops_settings": {"OPS_METRICS_TOKEN": "token-secret"},
        "node_exporters_run": ["node", "redis", "postgres"],
        "node_exporters_ports": {"node": free_port(), "redis": free_port(), "postgres": free_port()},
        "node_exporters_postgres_url": f"postgresql://watcher_1:watcher-secret@{database}?sslmode=disable",
        "prometheus_listen": f"127.0.0.1:{free_port()}",
        "prometheus_web_config": {"basic_auth_users": {READER[0]: HASH}},
        "alertmanager_listen": f"127.0.0.1:{free_port()}",
        "alertmanager_settings": {
            "ALERT_WEBHOOK_URL": "http://127.0.0.1:9/hook-secret",
            "ALERT_HEARTBEAT_URL": "http://127.0.0.1:9/beat-secret",
        },
        "alertmanager_secrets": {"ALERT_PAGERDUTY_KEY_FILE": "pager-secret"},
    }


def test_from_nothing(ansible: Ansible, tree: Callable[[str], Tree], watching: dict[str, Any]) -> None:
    """Applies, changes nothing the second time, has no diff; booted, everything is asked and Alertmanager told."""
    need("systemd-nspawn", "nsenter")
    one = mirrored(tree("shop1"))
    host = chroot(one)
    with one.entered():
        refused(ansible, host, watching)
        assert not (one.path / "opt/bitloot-ops").exists()
        first = ansible.play("site.yml", [host], watching, "--diff", groups=GROUPS)
        assert re.search(r"changed=[1-9].*failed=0", first)
        second = ansible.play("site.yml", [host], watching, "--diff", groups=GROUPS)
        assert re.search(r"changed=0 .*failed=0", second), second[-5000:]
        third = ansible.play("site.yml", [host], watching, "--check", "--diff", groups=GROUPS)
        assert re.search(r"changed=0 .*failed=0", third), third[-5000:]
        assert "+++" not in second + third
        for text in (first, second, third):
            assert not [secret for secret in SECRETS if secret in text]
    for path in readable(one.path / "etc"):
        assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()], path
    with one.booted():
        asks_all(one, watching)


def test_while_it_runs(ansible: Ansible, tree: Callable[[str], Tree], watching: dict[str, Any], key: Path) -> None:
    """A booted host: made whole over sshd; what can be reloaded is not restarted; what was stopped is started."""
    need("systemd-nspawn", "nsenter")
    one = mirrored(tree("shop1"))
    host = reached_by_ssh(one, key)
    with one.booted():
        ansible.play("site.yml", [host], watching, groups=GROUPS)
        asks_all(one, watching)
        said = one.run("journalctl", "--no-pager", "--unit=prometheus*")
        assert "address=127.0.0.1:" in said
        assert not re.search(r"(\[::\]|0\.0\.0\.0):\d|at :\d", said), (
            "one was started before its configuration was written"
        )
        # A webhook that cannot be reached: Alertmanager itself says its address, as docs/deploy.md tells.
        assert not [secret for secret in SECRETS if secret in said and secret not in {"hook-secret", "beat-secret"}]
        before = {unit: one.show(unit, "MainPID") for unit in DAEMONS}
        rules = one.path / "etc/prometheus/rules/gone.yml"
        rules.write_text("groups: []\n")
        one.run("systemctl", "stop", "prometheus-node-exporter")
        changed = watching | {"alertmanager_settings": {"ALERT_WEBHOOK_URL": "http://127.0.0.1:9/new-secret"}}
        ansible.play("site.yml", [host], changed, groups=GROUPS)
        assert not rules.exists()
        others = {unit for unit, pid in before.items() if one.show(unit, "MainPID") != pid}
        assert others == {"prometheus-node-exporter"}
        alertmanager = str(watching["alertmanager_listen"])
        one.until(lambda: ways(alertmanager)["heartbeat"] == set(), 60)
        assert ways(alertmanager)["page"] == {"webhook_configs", "pagerduty_configs"}
        asks_all(one, watching)
        again = ansible.play("site.yml", [host], changed, groups=GROUPS)
        assert re.search(r"changed=0 .*failed=0", again), again[-5000:]


def mirrored(one: Tree) -> Tree:
    """Say that the test is not run, where Debian's packages cannot be had; the host, which still knows none of them."""
    words = ["chroot", str(one.path), "apt-get", "update", "--quiet", "--option=APT::Update::Error-Mode=any"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"not run: Debian's packages are out of reach: {done.stderr[-300:]}")
    shutil.rmtree(one.path / "var/lib/apt/lists")
    return one


def refused(ansible: Ansible, host: Mapping[str, Any], watching: dict[str, Any]) -> None:
    """What is missing, or would be open to anybody, is named."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"node_exporters_postgres_url": ""}, "node_exporters_postgres_url"),
        ({"alertmanager_secrets": {"ALERT_PAGERDUTY_KEY_FILE": ""}}, "empty: ALERT_PAGERDUTY_KEY_FILE"),
        ({"alertmanager_settings": {"ALERT_ON_CALL": "x"}, "alertmanager_secrets": {}}, "one of ALERT_WEBHOOK_URL"),
        (
            {"prometheus_listen": "0.0.0.0:9090", "prometheus_web_config": {}},
            "set basic_auth_users in prometheus_web_config",
        ),
        ({"node_exporters_address": "0.0.0.0"}, "cannot ask shop1 node 0.0.0.0"),  # noqa: S104 - refused
    ]
    for change, named in cases:
        said = ansible.play("site.yml", [host], watching | change, groups=GROUPS, check=False)
        assert "failed=1" in said
        assert named in re.sub(r"\s+", " ", said), said[-3000:]
    less = {name: value for name, value in watching.items() if name != "alertmanager_settings"}
    said = ansible.play("site.yml", [host], less, groups=GROUPS, check=False)
    assert "missing required arguments: alertmanager_settings" in said


def asks_all(one: Tree, watching: Mapping[str, Any]) -> None:
    """Every target is up, the rules are loaded, the dead man's switch has reached Alertmanager; on loopback only."""
    prometheus, ports = str(watching["prometheus_listen"]), watching["node_exporters_ports"]
    wanted = {"bitloot-ops": one.port, **ports}
    one.until(lambda: targets(prometheus) == {(job, f"127.0.0.1:{port}", "up") for job, port in wanted.items()}, 120)
    for up in ("redis_up", "pg_up", "node_time_seconds > bool 0", 'ops_collector_up{collector="queues"}'):
        one.until(lambda up=up: asked(prometheus, up) == {"1"}, 60)
    files = {path.name for path in (ROOT / "prometheus/rules").glob("*.yml")}
    groups = api(prometheus, "rules")["groups"]
    assert {Path(group["file"]).name for group in groups} == files
    # Discovered anew after each reload.
    one.until(lambda: tells(prometheus) == [f"http://{watching['alertmanager_listen']}/api/v2/alerts"], 60)
    one.until(lambda: "Watchdog" in told(str(watching["alertmanager_listen"])), 120)
    for asks in (f"http://127.0.0.1:{one.port}/metrics", f"http://{prometheus}/api/v1/targets"):
        assert httpx.get(asks).status_code == 401, asks
    mine = {
        one.port,
        *ports.values(),
        *(int(str(watching[name])[10:]) for name in ("prometheus_listen", "alertmanager_listen")),
    }
    assert listeners(mine) == {port: {"0100007F"} for port in mine}
    status = httpx.get(f"http://{watching['alertmanager_listen']}/api/v2/status").json()
    assert status["cluster"]["status"] == "disabled", "it listens for others of its kind"


def api(prometheus: str, path: str, **parameters: str) -> dict[str, Any]:
    """What Prometheus says."""
    answer = httpx.get(f"http://{prometheus}/api/v1/{path}", params=parameters, auth=READER).raise_for_status()
    found: dict[str, Any] = answer.json()["data"]
    return found


def targets(prometheus: str) -> set[tuple[str, str, str]]:
    """Whom it asks, and how that went; nobody while it does not answer itself, or only that it starts."""
    try:
        active = api(prometheus, "targets")["activeTargets"]
    except httpx.HTTPError:
        return set()
    return {(each["labels"]["job"], each["labels"]["instance"], each["health"]) for each in active}


def tells(prometheus: str) -> list[str]:
    """The Alertmanagers it knows."""
    return [each["url"] for each in api(prometheus, "alertmanagers")["activeAlertmanagers"]]


def asked(prometheus: str, query: str) -> set[str]:
    """The values of a query."""
    return {each["value"][1] for each in api(prometheus, "query", query=query)["result"]}


def told(alertmanager: str) -> set[str]:
    """The alerts that reached Alertmanager."""
    found = httpx.get(f"http://{alertmanager}/api/v2/alerts").json()
    return {each["labels"]["alertname"] for each in found}


def ways(alertmanager: str) -> dict[str, set[str]]:
    """How each receiver is told, by the configuration it has read last."""
    loaded = httpx.get(f"http://{alertmanager}/api/v2/status").json()["config"]["original"]
    return {receiver["name"]: set(receiver) - {"name"} for receiver in yaml.safe_load(loaded)["receivers"]}


def listeners(ports: set[int]) -> dict[int, set[str]]:
    """The addresses, as the kernel writes them, at which somebody listens on each of these ports."""
    found: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                found.setdefault(int(port, 16), set()).add(address)
    return found


def readable(folder: Path) -> list[Path]:
    """Files that everybody may read."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o004]
