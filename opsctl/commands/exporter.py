"""`opsctl exporter`: run the exporters, and look at what they remember."""

from __future__ import annotations

import asyncio

import click

from opsctl import catalog
from opsctl.commands.checkpoints import checkpoints
from opsctl.kinds import serves
from opslib import log, sentry, server, settings
from opslib.errors import ConfigError
from opslib.setting_types import parse_listen


@click.group()
def exporter() -> None:
    """Publish metrics for Prometheus."""


exporter.add_command(checkpoints)


@exporter.command()
@click.argument("subjects", nargs=-1, type=click.Choice(list(catalog.SUBJECTS)), metavar="[SUBJECT]...")
@click.option("--listen", metavar="HOST:PORT", help="Where to answer; OPS_LISTEN, or 127.0.0.1:9401, by default.")
@serves
def run(subjects: tuple[str, ...], listen: str | None) -> None:
    """Run the named exporters (queues, ledger, providers, app) in one process; none named: all that have settings.

    Answers /metrics, /healthz and /readyz until SIGTERM, then drains.
    """
    loaded = settings.load()
    log.configure(loaded)
    sentry.init(loaded)
    try:
        host, port = parse_listen(listen) if listen else loaded.listen
    except ValueError as exc:
        raise ConfigError(f"--listen: {exc}") from exc
    chosen = [catalog.subject(name) for name in dict.fromkeys(subjects or catalog.SUBJECTS)]
    if not subjects:
        chosen = [subject for subject in chosen if not subject.missing(loaded.has)]
        if not chosen:
            raise ConfigError("no exporter has its settings; `opsctl check-config` says what each needs")
    if lacking := [f"{subject.name} needs {need}" for subject in chosen for need in subject.missing(loaded.has)]:
        raise ConfigError("\n".join([*lacking, "set it in the environment or in the file OPS_CONFIG names"]))
    asyncio.run(
        server.serve(
            [collector for subject in chosen for collector in catalog.load(subject.collectors)(loaded)],
            server.Listen(
                host,
                port,
                token=loaded.ops_metrics_token.get_secret_value() if loaded.ops_metrics_token else None,
                certificate=loaded.ops_tls_cert,
                key=loaded.ops_tls_key,
            ),
        )
    )
