"""`make generate`: write every generated file; `--check` only says which are stale, orphaned or untracked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from opsctl import catalog
from opsctl.render import alerts, cli, dashboards, markdown, rules, scrape
from opslib.contract import canonical
from opslib.settings import FIELDS
from opslib.spec import Subject

ROOT = Path(__file__).parent.parent

WHOLLY_OURS = ("prometheus/rules/*.yml", "grafana/dashboards/*.json")
"""What matches and is not generated is left over: of a subject, a board, that is no more."""
HEADED = "runbooks/*.md"
"""Of these only one line is generated; one that has it and no alert is left over."""


def files() -> dict[Path, str]:
    """Every generated file with what it should hold."""
    subjects = catalog.watched()
    jobs = {name: catalog.load(target) for name, target in catalog.JOBS.items()}
    listen = next(str(field.default) for field in FIELDS if field.name == "OPS_LISTEN")
    settings = (
        (f"`{f.name}`" + (" (secret)" if f.secret else ""), f.kind, f"`{f.default}`" if f.default else "-", f.meaning)
        for f in FIELDS
    )
    return {
        ROOT / "docs/metrics.md": markdown.metrics(subjects[:-1], subjects[-1].metrics),
        ROOT / "docs/alerts.md": alerts.page(subjects),
        ROOT / "docs/views.md": markdown.views(canonical.VIEWS),
        ROOT / "docs/settings.md": markdown.settings(settings),
        ROOT / "docs/cli.md": cli.page(
            (name, catalog.load(catalog.COMMANDS[name].target)) for name in sorted(catalog.COMMANDS)
        ),
        ROOT / "prometheus/prometheus.yml": scrape.prometheus(listen),
        ROOT / "ansible/group_vars/all/generated.yml": scrape.ansible(subjects, jobs, listen),
        **{
            ROOT / f"prometheus/rules/{subject.name}.yml": rules.rules(subject)
            for subject in subjects
            if subject.alerts
        },
        **{
            ROOT / f"grafana/dashboards/{name}.json": dashboards.dashboard(catalog.load(target))
            for name, target in catalog.BOARDS.items()
        },
        **dict(_runbooks(subjects)),
    }


def _runbooks(subjects: Iterable[Subject]) -> Iterator[tuple[Path, str]]:
    for subject in subjects:
        for alert in subject.alerts:
            path = ROOT / f"runbooks/{alert.name}.md"
            yield path, alerts.runbook(alert, subject, path.read_text("utf-8") if path.exists() else None)


def problems(wanted: Mapping[Path, str]) -> Iterator[str]:
    """What is wrong with the generated files as they are: one line each, with what to do."""
    for path in _stale(wanted):
        yield f"{path.relative_to(ROOT)} is stale: run `make generate`"
    for path in _orphans(wanted):
        yield f"{path.relative_to(ROOT)} is orphaned, nothing generates it any more: remove it"
    for path in _untracked(wanted):
        yield f"{path.relative_to(ROOT)} is not tracked: `git add` it"


def _stale(wanted: Mapping[Path, str]) -> list[Path]:
    return [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]


def _orphans(wanted: Mapping[Path, str]) -> Iterator[Path]:
    for pattern in WHOLLY_OURS:
        yield from sorted(set(ROOT.glob(pattern)) - wanted.keys())
    for path in sorted(set(ROOT.glob(HEADED)) - wanted.keys()):
        if "<!-- generated:" in path.read_text("utf-8"):
            yield path


def _untracked(wanted: Mapping[Path, str]) -> Sequence[Path]:
    """A file that is current on this machine alone. Outside a checkout, as in a released archive, there is no such."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return ()
    names = [str(path.relative_to(ROOT)) for path in wanted]
    listed = subprocess.run(  # noqa: S603 - our own file names
        [git, "ls-files", "-z", "--", *names], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    return [path for path, name in zip(wanted, names, strict=True) if path.exists() and name not in listed]


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` only compare; exit code 1 names what is wrong."""
    wanted = files()
    if arguments == ["--check"]:
        found = list(problems(wanted))
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
        return bool(found)
    for path in _stale(wanted):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    for path in _orphans(wanted):
        print(f"{path.relative_to(ROOT)} is orphaned: remove it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
