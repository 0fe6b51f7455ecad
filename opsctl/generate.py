"""`make generate`: write every generated file; `--check` only says which are stale."""

from __future__ import annotations

import sys
from pathlib import Path

from exporters.signals import itself
from opsctl import catalog
from opsctl.render import cli, markdown, rules
from opslib.collector import SELF_METRICS
from opslib.contract import canonical
from opslib.server import PAGE_METRICS
from opslib.settings import FIELDS
from opslib.spec import Subject

ROOT = Path(__file__).parent.parent

ITSELF = Subject(
    name="exporters",
    title="The exporters themselves",
    needs=(),
    metrics=(*SELF_METRICS, *PAGE_METRICS),
    collectors="",  # on every exporter's page
    signals=itself.SIGNALS,
    alerts=itself.ALERTS,
)


def files() -> dict[Path, str]:
    """Every generated file with what it should hold."""
    subjects = [catalog.subject(name) for name in catalog.SUBJECTS]
    watched = [*subjects, ITSELF]
    settings = (
        (f"`{f.name}`" + (" (secret)" if f.secret else ""), f.kind, f"`{f.default}`" if f.default else "-", f.meaning)
        for f in FIELDS
    )
    return {
        ROOT / "docs/metrics.md": markdown.metrics(subjects, (*SELF_METRICS, *PAGE_METRICS)),
        ROOT / "docs/views.md": markdown.views(canonical.VIEWS),
        ROOT / "docs/settings.md": markdown.settings(settings),
        ROOT / "docs/cli.md": cli.page(
            (name, catalog.load(catalog.COMMANDS[name].target)) for name in sorted(catalog.COMMANDS)
        ),
        **{ROOT / f"prometheus/rules/{subject.name}.yml": rules.rules(subject) for subject in watched},
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` only compare; exit code 1 names the stale ones."""
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make generate`", file=sys.stderr)
        return bool(stale)
    for path in stale:
        path.write_text(wanted[path], "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
