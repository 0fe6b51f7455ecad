"""Alertmanager: every alert reaches its receiver, what keeps quiet beside what, and what a notification says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from demo.processes import Account, Server, free_port, private_directory, wait_until
from opsctl import catalog
from opsctl.cli import cli
from opslib.errors import ConfigError
from opslib.settings import FIELDS

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "alertmanager" / "alertmanager.yml"
ROUTES: dict[str, str] = yaml.safe_load((ROOT / "alertmanager" / "routes_test.yaml").read_text("utf-8"))
ALERTS = {alert.name: (subject, alert) for subject in catalog.watched() for alert in subject.alerts}
EVERY_WAY = {
    "ALERT_WEBHOOK_URL": "http://127.0.0.1:9/alerts",
    "ALERT_WEBHOOK_TOKEN_FILE": "/run/secrets/webhook",
    "ALERT_HEARTBEAT_URL": "http://127.0.0.1:9/alive",
    "ALERT_EMAIL_TO": "ops@example.test",
    "ALERT_EMAIL_FROM": "alerts@example.test",
    "ALERT_SMTP": "mail.example.test:587",
    "ALERT_SMTP_USER": "alerts",
    "ALERT_SMTP_PASSWORD_FILE": "/run/secrets/smtp",
    "ALERT_SLACK_URL_FILE": "/run/secrets/slack",
    "ALERT_SLACK_CHANNEL": "#ops",
    "ALERT_PAGERDUTY_KEY_FILE": "/run/secrets/pagerduty",
    "ALERT_RUNBOOK_URL": "https://git.example.test/ops/blob/main",
    "ALERT_ON_CALL": "the rota at {{ example }}",
    "GRAFANA_URL": "https://grafana.example.test",
}


@pytest.fixture(scope="session")
def amtool() -> str:
    """Debian's, which must be there: a skipped test is a test nobody misses."""
    found = shutil.which("amtool")
    if found is None:
        pytest.fail("these tests need amtool: `apt-get install prometheus-alertmanager`")
    return found


def run(*command: str | Path) -> tuple[int, str]:
    """Exit code and everything printed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


def render(folder: Path, settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """`opsctl alertmanager render` with these settings."""
    for field in FIELDS:
        monkeypatch.delenv(field.name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli, ["alertmanager", "render", str(folder)])
    if isinstance(result.exception, ConfigError):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_reaches_its_receivers(amtool: str, name: str) -> None:
    """As written down in routes_test.yaml, by the labels its rule really has."""
    subject, alert = ALERTS[name]
    labels = [f"alertname={name}", f"severity={alert.severity}", f"subject={subject.name}"]
    file = f"--config.file={WRITTEN}"
    code, said = run(amtool, "config", "routes", "test", file, f"--verify.receivers={ROUTES[name]}", *labels)
    assert code == 0, said
    assert alert.severity in ROUTES[name].split(","), "its severity is a receiver's name"
    wrong = run(amtool, "config", "routes", "test", file, "--verify.receivers=nobody", *labels)
    assert wrong[0] == 1, "amtool takes any receiver"


def test_no_route_is_missing_and_none_left_over() -> None:
    """The count."""
    assert ROUTES.keys() == ALERTS.keys()


def test_every_way_is_rendered(amtool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alertmanager takes it; pages alone wake people; secrets are paths; a second rendering is the same."""
    code, said = render(tmp_path, EVERY_WAY, monkeypatch)
    assert code == 0, said
    assert run(amtool, "check-config", tmp_path / "alertmanager.yml")[0] == 0
    text = (tmp_path / "alertmanager.yml").read_text("utf-8")
    receivers = {receiver.pop("name"): receiver for receiver in yaml.safe_load(text)["receivers"]}
    assert {name: set(ways) for name, ways in receivers.items()} == {
        "heartbeat": {"webhook_configs"},
        "page": {"webhook_configs", "email_configs", "slack_configs", "pagerduty_configs"},
        "security": {"webhook_configs", "email_configs"},
        "ticket": {"webhook_configs", "email_configs", "slack_configs"},
    }
    assert all(path in text for name, path in EVERY_WAY.items() if name.endswith("_FILE"))
    assert (tmp_path / "alertmanager.yml").stat().st_mode & 0o007 == 0, "a webhook's address is often a secret"
    assert render(tmp_path, EVERY_WAY, monkeypatch)[0] == 0
    assert (tmp_path / "alertmanager.yml").read_text("utf-8") == text


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({}, "nobody would be told"),
        ({"ALERT_EMAIL_TO": "a@example.test"}, "ALERT_SMTP"),
        ({"ALERT_SLACK_URL_FILE": "/x"}, "ALERT_SLACK_CHANNEL"),
    ],
)
def test_nobody_told_is_refused(
    settings: dict[str, str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Alertmanager that tells nobody looks healthy for ever."""
    with pytest.raises(ConfigError, match=hint):
        render(tmp_path, settings, monkeypatch)
    assert not (tmp_path / "alertmanager.yml").exists()


def test_a_notification_says_all(amtool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Summary with its number, since when, runbook, board, on call; when it is over, that."""
    render(tmp_path, EVERY_WAY, monkeypatch)
    annotations = {
        "summary": "orders: the oldest job has waited 5m 1s",
        "runbook": "runbooks/QueueStuck.md",
        "board": "d/bitloot-queues",
    }
    at = "2026-01-02T03:04:05Z"
    alert = {"status": "firing", "labels": {"alertname": "QueueStuck"}, "annotations": annotations, "startsAt": at}
    data = {"status": "firing", "alerts": [alert, {**alert, "status": "resolved"}], "commonLabels": alert["labels"]}
    (tmp_path / "data.json").write_text(json.dumps(data))

    def text(of: str) -> str:
        return run(
            amtool,
            "template",
            "render",
            f"--template.glob={tmp_path}/templates/*.tmpl",
            f'--template.text={{{{ template "{of}" . }}}}',
            f"--template.data={tmp_path}/data.json",
        )[1].strip()

    assert text("ops.title") == "[FIRING 1] QueueStuck ()"
    assert text("ops.text").splitlines() == [
        "orders: the oldest job has waited 5m 1s, since 2026-01-02 03:04 UTC",
        "Runbook: https://git.example.test/ops/blob/main/runbooks/QueueStuck.md",
        "Board: https://grafana.example.test/d/bitloot-queues",
        "Over: orders: the oldest job has waited 5m 1s",
        "Runbook: https://git.example.test/ops/blob/main/runbooks/QueueStuck.md",
        "Board: https://grafana.example.test/d/bitloot-queues",
        "On call: the rota at { { example }}",
    ]


class Alertmanager(Server):
    """Debian's, with the routes as they are and receivers that tell nobody."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("prometheus-alertmanager") or pytest.fail("apt-get install prometheus-alertmanager")
        self.url = f"http://127.0.0.1:{free_port()}"
        super().__init__(
            "Alertmanager",
            [
                program,
                f"--config.file={WRITTEN}",
                f"--storage.path={folder}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--cluster.listen-address=",
            ],
            log=folder / "log",
            ready=lambda: bool(self.ask("/api/v2/status")),
            account=Account.ours(),
        )

    def ask(self, path: str, body: object = None) -> Any:
        """Its API."""
        try:
            answer = httpx.get(self.url + path) if body is None else httpx.post(self.url + path, json=body)
        except httpx.TransportError as exc:
            raise OSError(str(exc)) from exc  # not there yet
        return answer.raise_for_status().json() if answer.content else None


@pytest.fixture(scope="module")
def alertmanager() -> Iterator[Alertmanager]:
    """One for all of these."""
    with private_directory() as folder, Alertmanager(folder) as server:
        yield server


def labels_of(name: str, **more: str) -> dict[str, str]:
    """What an alert of that name carries."""
    subject, alert = ALERTS[name]
    return {"alertname": name, "severity": alert.severity.value, "subject": subject.name, **more}


QUIET: list[tuple[str, dict[str, str], str, dict[str, str]]] = [
    ("ExporterAbsent", {}, "PaidNotFulfilled", {}),
    ("ExporterAbsent", {}, "ExporterSourceDown", {"collector": "queues"}),
    ("ExporterDown", {"instance": "a"}, "QueuePaused", {"queue": "q", "instance": "a"}),
    ("ExporterSourceDown", {"collector": "queues"}, "QueueStalled", {"queue": "q"}),
    ("ExporterSourceDown", {"collector": "ledger/webhook"}, "WebhookErrors", {"provider": "kinguin"}),
    ("ExporterSourceDown", {"collector": "providers/history"}, "ProviderRunwayShort", {"provider": "kinguin"}),
    ("ExporterSourceDown", {"collector": "app"}, "AppRestarting", {}),
    ("ExporterSourceDown", {"collector": "runs"}, "JobOverdue", {"job_name": "cleanup"}),
    ("ExporterSourceDown", {"collector": "backups/objects"}, "BackupStale", {}),
    ("ExporterSourceDown", {"collector": "flags"}, "FlagsStale", {}),
    ("ExporterSourceDown", {"collector": "audit"}, "AuditUnverified", {}),
    ("ContractBroken", {}, "IpnDropped", {"problem": "ipn_dropped"}),
    ("ProviderDown", {"provider": "kinguin"}, "ProviderSlow", {"provider": "kinguin"}),
    ("ProviderDown", {"provider": "kinguin"}, "QueueRetryStorm", {"queue": "q"}),
    ("QueueNoWorker", {"queue": "q"}, "QueueStuck", {"queue": "q"}),
    ("IpnAllInvalid", {}, "IpnInvalid", {}),
    ("FulfilmentBudgetFast", {}, "FulfilmentBudgetSlow", {}),
    ("IpnBudgetFast", {}, "IpnBudgetSlow", {}),
    ("ProviderRunwayShort", {"provider": "kinguin"}, "ProviderBalanceLow", {"provider": "kinguin"}),
    ("BackupsMissed", {}, "BackupStale", {}),
    ("AuditDamaged", {}, "AuditShrunk", {}),
    ("JobsUndeclared", {}, "JobOverdue", {"job_name": "cleanup"}),
]
"""One alert that fires, and one it keeps quiet: for each rule of inhibition."""
LOUD: list[tuple[str, dict[str, str], str, dict[str, str]]] = [
    ("ProviderDown", {"provider": "kinguin"}, "PaidNotFulfilled", {}),
    ("ProviderDown", {"provider": "kinguin"}, "ProviderSlow", {"provider": "nowpayments"}),
    ("ProviderDown", {"provider": "nowpayments"}, "QueueRetryStorm", {"queue": "q"}),
    ("ExporterDown", {"instance": "a"}, "QueuePaused", {"queue": "q", "instance": "b"}),
    ("ExporterDown", {"instance": "a"}, "IpnDropped", {}),
    ("ExporterSourceDown", {"collector": "queues"}, "PaidNotFulfilled", {}),
    ("ExporterSourceDown", {"collector": "audit"}, "AuditDamaged", {}),
    ("QueueNoWorker", {"queue": "q"}, "QueueStuck", {"queue": "other"}),
    ("ExporterAbsent", {}, "Watchdog", {}),
]
"""One that fires, and one that must be heard all the same."""


@pytest.mark.parametrize(
    ("case", "quiet"),
    [(case, True) for case in QUIET] + [(case, False) for case in LOUD],
    ids=lambda value: f"{value[0]}-{value[2]}" if isinstance(value, tuple) else "",
)
def test_what_keeps_quiet_beside_what(
    alertmanager: Alertmanager,
    case: tuple[str, dict[str, str], str, dict[str, str]],
    quiet: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Asked of the real one: the first fires, is the second told?"""
    source, its, target, others = case
    first, second = labels_of(source, **its), labels_of(target, **others)
    now = datetime.now(UTC).isoformat()

    def state(labels: dict[str, str]) -> dict[str, Any]:
        for alert in alertmanager.ask("/api/v2/alerts"):
            if alert["labels"] == labels and alert["status"]["state"] != "unprocessed":
                found: dict[str, Any] = alert["status"]
                return found
        return {}

    try:
        alertmanager.ask("/api/v2/alerts", [{"labels": first, "startsAt": now}, {"labels": second, "startsAt": now}])
        wait_until(lambda: state(first) and state(second), 10, "Alertmanager to look at both")
        if quiet:
            wait_until(lambda: state(second)["inhibitedBy"], 5, f"{target} to be quiet beside {source}")
        assert bool(state(second)["inhibitedBy"]) is quiet
        assert not state(first)["inhibitedBy"], "what speaks for others is itself heard"
    finally:
        over = [{"labels": labels, "startsAt": now, "endsAt": now} for labels in (first, second)]
        alertmanager.ask("/api/v2/alerts", over)
        wait_until(lambda: not state(first), 5, "it to be over")


def test_each_rule_of_inhibition_is_asked() -> None:
    """The count: as many as there are, each by its own case."""
    assert len(QUIET) == len(yaml.safe_load(WRITTEN.read_text("utf-8"))["inhibit_rules"])


def test_each_subject_is_quiet_while_its_source_is_down() -> None:
    """Its gauges are gone then, and what its counters still say is old."""
    down = {ALERTS[target][0].name for source, _, target, _ in QUIET if source == "ExporterSourceDown"}
    assert down == {subject.name for subject in catalog.watched()} - {"exporters"}


def test_maintenance_mutes_tickets_alone() -> None:
    """A page in these hours is as much a page as in any other."""
    muted = [
        route["receiver"]
        for route in yaml.safe_load(WRITTEN.read_text("utf-8"))["route"]["routes"]
        if "mute_time_intervals" in route
    ]
    assert muted == ["ticket"]
