"""Real Prometheus and Alertmanager on the rules and routes as they are, only faster; and who is told."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from aiohttp import web

from demo.embedded import opsctl
from demo.http import HttpServer
from demo.processes import Account, Server, free_port

ROOT = Path(__file__).parents[2]
FASTER = 60
"""A minute of the rules passes in a second: every `for`, window, offset and wait of the routes."""
FASTER_KEPT = 20
"""But `keep_firing_for` in three, for it must outlast real restarts, which are no faster here."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"(\d+)([smhd])"


def faster(text: str, by: int = FASTER) -> str:
    """A duration, so many times shorter; a second at least."""
    number, unit = re.fullmatch(_DURATION, text).groups()  # type: ignore[union-attr]
    return f"{max(int(number) * _SECONDS[unit] // by, 1)}s"


def faster_rules(content: Mapping[str, Any]) -> dict[str, Any]:
    """A rule file whose minutes pass in seconds. Thresholds stay what they are."""
    groups = []
    for group in content["groups"]:
        rules = []
        for rule in group["rules"]:
            expr = re.sub(rf"\[{_DURATION}\]", lambda m: f"[{faster(m[0][1:-1])}]", rule["expr"])
            expr = re.sub(rf"offset {_DURATION}", lambda m: f"offset {faster(m[0].split()[1])}", expr)
            short = {**rule, "expr": expr}
            if "for" in rule:
                short["for"] = faster(rule["for"])
            if "keep_firing_for" in rule:
                short["keep_firing_for"] = faster(rule["keep_firing_for"], FASTER_KEPT)
            rules.append(short)
        groups.append({"name": group["name"], "interval": "1s", "rules": rules})
    return {"groups": groups}


def faster_routes(route: Mapping[str, Any]) -> dict[str, Any]:
    """A route, its waits shorter, with all below it."""
    waits = {name: faster(value) for name, value in route.items() if name.endswith(("_wait", "_interval"))}
    return {**route, **waits, "routes": [faster_routes(child) for child in route.get("routes", ())]}


class Told(HttpServer):
    """The receiver of webhooks.

    Attributes:
        alerts: Every alert it was told of, in order.
        beats: When the dead man's switch was heard, by the monotonic clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alerts: list[dict[str, Any]] = []
        self.beats: list[float] = []

    def application(self) -> web.Application:
        """Two addresses."""
        app = web.Application()
        app.router.add_post("/alerts", self._told)
        app.router.add_post("/alive", self._alive)
        return app

    async def _told(self, request: web.Request) -> web.Response:
        self.alerts += (await request.json())["alerts"]
        return web.Response()

    async def _alive(self, _: web.Request) -> web.Response:
        self.beats.append(time.monotonic())
        return web.Response()

    def of(self, name: str, status: str) -> list[dict[str, Any]]:
        """What it was told of an alert."""
        return [one for one in self.alerts if one["labels"]["alertname"] == name and one["status"] == status]


class Alertmanager(Server):
    """Debian's, on what `opsctl alertmanager render` makes of the settings."""

    def __init__(self, folder: Path, told: Told) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        opsctl(
            "alertmanager",
            "render",
            str(folder),
            ALERT_WEBHOOK_URL=f"{told.url}/alerts",
            ALERT_HEARTBEAT_URL=f"{told.url}/alive",
        )
        file = folder / "alertmanager.yml"
        content = yaml.safe_load(file.read_text("utf-8"))
        file.write_text(yaml.safe_dump({**content, "route": faster_routes(content["route"])}), "utf-8")
        argv = ["prometheus-alertmanager", f"--config.file={file}", f"--storage.path={folder / 'data'}"]
        argv += [f"--web.listen-address={self.address}", "--cluster.listen-address="]
        super().__init__("Alertmanager", argv, log=folder / "log", ready=self._answers_at_all, account=Account.ours())

    def _answers_at_all(self) -> bool:
        return _ok(f"http://{self.address}/-/ready")


class Prometheus(Server):
    """Debian's, on the generated configuration and rules."""

    def __init__(self, folder: Path, exporter: str, alertmanager: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        content = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text("utf-8"))
        content["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s")
        content["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
        content["scrape_configs"][0]["static_configs"][0]["targets"] = [exporter]
        (folder / "rules").mkdir()
        for path in (ROOT / "prometheus" / "rules").glob("*.yml"):
            rules = faster_rules(yaml.safe_load(path.read_text("utf-8")))
            (folder / "rules" / path.name).write_text(yaml.safe_dump(rules), "utf-8")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(content), "utf-8")
        argv = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        argv += [f"--web.listen-address={self.address}"]
        super().__init__("Prometheus", argv, log=folder / "log", ready=self._answers_at_all, account=Account.ours())

    def _answers_at_all(self) -> bool:
        return _ok(f"http://{self.address}/-/ready")

    def firing(self) -> set[str]:
        """The alerts that fire."""
        alerts = (
            httpx.get(f"http://{self.address}/api/v1/alerts", timeout=5).raise_for_status().json()["data"]["alerts"]
        )
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def _ok(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
