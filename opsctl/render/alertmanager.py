"""Alertmanager's configuration: the routes written by hand, and the ways of telling somebody that a site has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

HEAD = "# Rendered by `opsctl alertmanager render` from alertmanager/alertmanager.yml and the settings; do not edit.\n"
SITE = "site.tmpl"
_TEXT = {"title": '{{ template "ops.title" . }}', "text": '{{ template "ops.text" . }}'}

Ways = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Site:
    """What one site has. Secrets are paths of files which Alertmanager itself reads: none of them passes through here.

    Attributes:
        webhook_url: Takes every alert as JSON.
        webhook_token_file: Holds its bearer token.
        heartbeat_url: Is called once a minute, and calls when that stops.
        email_to: Who gets e-mails.
        email_from: Whom they come from.
        smtp: host:port.
        smtp_user: Login there.
        smtp_password_file: Holds its password.
        slack_url_file: Holds Slack's webhook URL.
        slack_channel: Where to write.
        pagerduty_key_file: Holds the routing key.
        runbooks: Put before `runbooks/NAME.md`.
        grafana: Put before `d/BOARD`.
        on_call: Who is on call, or where that is written.
    """

    webhook_url: str | None = None
    webhook_token_file: str | None = None
    heartbeat_url: str | None = None
    email_to: str | None = None
    email_from: str | None = None
    smtp: str | None = None
    smtp_user: str | None = None
    smtp_password_file: str | None = None
    slack_url_file: str | None = None
    slack_channel: str | None = None
    pagerduty_key_file: str | None = None
    runbooks: str | None = None
    grafana: str | None = None
    on_call: str | None = None

    def ways(self, receiver: str) -> Ways:
        """How a receiver is told. PagerDuty wakes people: pages only."""
        if receiver == "heartbeat":
            url = self.heartbeat_url
            return {"webhook_configs": [{"url": url, "send_resolved": False}]} if url else {}
        ways: Ways = {}
        if self.webhook_url:
            ways["webhook_configs"] = [{"url": self.webhook_url, **_bearer(self.webhook_token_file)}]
        if self.email_to:
            headers = {"Subject": _TEXT["title"]}
            ways["email_configs"] = [
                {"to": self.email_to, "headers": headers, "text": _TEXT["text"], "html": "", "send_resolved": True}
            ]
        if self.slack_url_file and receiver != "security":
            ways["slack_configs"] = [
                {"api_url_file": self.slack_url_file, "channel": self.slack_channel, **_TEXT, "send_resolved": True}
            ]
        if self.pagerduty_key_file and receiver == "page":
            ways["pagerduty_configs"] = [
                {
                    "routing_key_file": self.pagerduty_key_file,
                    "description": _TEXT["title"],
                    "details": {"text": _TEXT["text"]},
                }
            ]
        return ways

    def smarthost(self) -> dict[str, str]:
        """How e-mails are sent."""
        given = {
            "smtp_smarthost": self.smtp,
            "smtp_from": self.email_from,
            "smtp_auth_username": self.smtp_user,
            "smtp_auth_password_file": self.smtp_password_file,
        }
        return {name: value for name, value in given.items() if value}


def configuration(written: str, site: Site) -> str:
    """alertmanager.yml.

    Args:
        written: The one written by hand.
        site: Whose ways its receivers get.
    """
    content = yaml.safe_load(written)
    receivers = [{**receiver, **site.ways(receiver["name"])} for receiver in content.pop("receivers")]
    return HEAD + yaml.safe_dump(
        {"global": site.smarthost(), **content, "receivers": receivers, "templates": ["templates/*.tmpl"]},
        sort_keys=False,
        width=1000,
    )


def links(site: Site) -> str:
    """The template of what only the site knows."""
    parts = {
        "ops.runbooks": _folder(site.runbooks),
        "ops.grafana": _folder(site.grafana),
        "ops.on_call": site.on_call or "nobody is named (ALERT_ON_CALL)",
    }
    # What stands in a define is taken as a template: braces of somebody's text must not begin an action.
    return "".join(
        f'{{{{ define "{name}" }}}}{value.replace("{{", "{ {")}{{{{ end }}}}\n' for name, value in parts.items()
    )


def _folder(url: str | None) -> str:
    return f"{url.rstrip('/')}/" if url else ""


def _bearer(path: str | None) -> dict[str, Any]:
    return {"http_config": {"authorization": {"type": "Bearer", "credentials_file": path}}} if path else {}
