"""`python -m demo`: everything on an embedded stack, with traffic. `python -m demo check`: is every number exact?"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from demo.check import check
from demo.embedded import Stack, prometheus_server, stack
from demo.live import watch
from demo.processes import StartError
from demo.session import Session, session

PER_SECOND = 4.0


def main() -> int:
    """Parse and run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "check"), default="run")
    parser.add_argument("--seconds", type=float, default=60, help="how long the check's traffic flows")
    parser.add_argument("--seed", type=int, default=1, help="of the traffic's chance")
    options = parser.parse_args()
    console = Console()
    _leave_politely()
    try:
        console.print("starting PostgreSQL 18, Redis 6.2 and S3")
        with stack() as servers:
            if options.what == "check":
                agreed = asyncio.run(check(servers, console, seconds=options.seconds, seed=options.seed))
                return 0 if agreed else 1
            asyncio.run(_run(servers, console, seed=options.seed))
    except KeyboardInterrupt:
        console.print("\nstopped; nothing is left behind")
    except (StartError, TimeoutError) as exc:
        console.print(f"[red]the demo cannot go on:[/] {exc}", markup=True, highlight=False)
        return 1
    return 0


def _leave_politely() -> None:
    """A polite kill is a Ctrl-C: the same way out, which leaves nothing behind."""
    # A script's shell starts what it puts into the background with SIGINT ignored; asyncio then never listens to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for polite in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(polite) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(polite, lambda *_: signal.raise_signal(signal.SIGINT))


async def _run(servers: Stack, console: Console, *, seed: int) -> None:
    async with session(servers, seed=seed, per_second=PER_SECOND) as here:
        console.print("yesterday's orders are in; now its night: backed up, proven, restored, replicated")
        await here.live_night()
        await here.start_exporter()
        with ExitStack() as exits:
            prometheus = prometheus_server(servers.directory, here.exporter)
            if prometheus is not None:
                exits.enter_context(prometheus)
            for what, address in (
                ("metrics", f"{here.exporter.url}/metrics"),
                ("Prometheus", prometheus.name.rpartition(" ")[2] if prometheus else "not installed"),
                ("application", f"{here.world.app.url}/metrics"),
                ("PostgreSQL", servers.dsn),
                ("Redis", servers.redis.url),
                ("S3", servers.s3.endpoint),
                ("opsctl", f"in another terminal: . {_environment(here)}"),
            ):
                console.print(f"  {what:<12} {address}", markup=False, highlight=False)
            async with here.traffic.flowing():
                await here.jobs.worked()
                await watch(here, console)


def _environment(here: Session) -> Path:
    """A file a shell reads, after which `opsctl` talks to this demo; only for whoever started it: it holds keys."""
    file = here.stack.directory / "opsctl.sh"
    path = f"{Path(sys.executable).parent}:$PATH"
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in here.operator.items()]
    file.touch(mode=0o600)
    file.write_text("".join([*lines, f'export PATH="{path}"\n']), "utf-8")
    return file


if __name__ == "__main__":
    sys.exit(main())
