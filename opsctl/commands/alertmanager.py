"""`opsctl alertmanager`: what Alertmanager loads, from the routes written by hand and the settings."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import SecretStr

from opsctl.kinds import reads
from opsctl.render.alertmanager import SITE, Site, configuration, links
from opslib import settings
from opslib.errors import ConfigError
from opslib.settings import Settings

_HERE = Path(__file__).parents[1]
FOLDERS = (_HERE.parent / "alertmanager", _HERE / "alertmanager")
"""Where the routes are: in a checkout; in an installed wheel."""
MAIN = "alertmanager.yml"


@click.group()
def alertmanager() -> None:
    """Alertmanager's configuration."""


@alertmanager.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@reads
def render(directory: Path) -> None:
    """Write alertmanager.yml and its templates into DIRECTORY: the routes, and whom the settings ALERT_… name.

    Passwords and keys stay in the files the settings point to, which Alertmanager reads for itself. Then
    `amtool check-config DIRECTORY/alertmanager.yml`, and have Alertmanager reload.
    """
    written = files(settings.load())
    for name, text in written.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == MAIN:
            path.touch(mode=0o640)  # before it holds anything: a webhook's address is often a secret
        path.write_text(text, "utf-8")
    click.echo(f"wrote {directory / MAIN} and {len(written) - 1} templates")


def files(config: Settings) -> dict[str, str]:
    """All that Alertmanager loads: each file's text by its path below one folder.

    Raises:
        ConfigError: Nobody would be told of a page; or a way lacks a part.
    """
    site = site_of(config)
    source = next(folder for folder in FOLDERS if folder.is_dir())
    templates = {path.name: path.read_text("utf-8") for path in sorted((source / "templates").glob("*.tmpl"))}
    templates[SITE] = links(site)
    return {
        MAIN: configuration((source / MAIN).read_text("utf-8"), site),
        **{f"templates/{name}": text for name, text in templates.items()},
    }


def _text(url: SecretStr | None) -> str | None:
    """Alertmanager 0.25 reads no address from a file, so these two stand in its own."""
    return None if url is None else url.get_secret_value()


def site_of(config: Settings) -> Site:
    """The site the settings describe.

    Raises:
        ConfigError: Nobody would be told of a page; or a way lacks a part.
    """
    site = Site(
        webhook_url=_text(config.alert_webhook_url),
        webhook_token_file=config.alert_webhook_token_file,
        heartbeat_url=_text(config.alert_heartbeat_url),
        email_to=config.alert_email_to,
        email_from=config.alert_email_from,
        smtp=config.alert_smtp,
        smtp_user=config.alert_smtp_user,
        smtp_password_file=config.alert_smtp_password_file,
        slack_url_file=config.alert_slack_url_file,
        slack_channel=config.alert_slack_channel,
        pagerduty_key_file=config.alert_pagerduty_key_file,
        runbooks=config.alert_runbook_url,
        grafana=config.grafana_url,
        on_call=config.alert_on_call,
    )
    if site.email_to and not (site.smtp and site.email_from):
        raise ConfigError("ALERT_EMAIL_TO needs ALERT_SMTP and ALERT_EMAIL_FROM: set them, or none of the three")
    if site.slack_url_file and not site.slack_channel:
        raise ConfigError("ALERT_SLACK_URL_FILE needs ALERT_SLACK_CHANNEL: #ops, for one")
    if not site.ways("page"):
        raise ConfigError(
            "nobody would be told: set ALERT_WEBHOOK_URL, ALERT_EMAIL_TO, ALERT_SLACK_URL_FILE or "
            "ALERT_PAGERDUTY_KEY_FILE"
        )
    return site
