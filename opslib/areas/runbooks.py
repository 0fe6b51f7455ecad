"""Runbooks: pages a person follows at night, whose commands can be run, and are, by a test.

A page is Markdown in `runbooks/`. Below a heading `### 3. Title` a block fenced as ```` ```sh step ```` is what step 3
does; one fenced as ```` ```sh before ```` is typed by hand before anything can be written down. Below `## You need`
each item `- `NAME`: …` is an environment variable the steps read. Steps are numbered from 1 without gaps.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from opslib.errors import ConfigError, NotFoundError

HERE = Path(__file__).parent
FOLDERS = (HERE.parents[1] / "runbooks", HERE.parent / "runbooks")
"""In a checkout; in an installed wheel."""
REASON = "REASON"
"""The variable in which a step finds the `--reason` given for the whole."""
_HEADING = re.compile(r"### (\d+)\. (.+)")
_NEED = re.compile(r"^- `([A-Z][A-Z0-9_]*)`")
_REHEARSED = re.compile(r"Last rehearsal: ([\d.]+) s")


@dataclass(frozen=True, slots=True)
class Step:
    """One numbered step.

    Attributes:
        number: From 1.
        title: Its heading.
        script: What bash runs; empty: nothing but words.
        rehearsed: Seconds it took when it was last rehearsed; None: never measured.
    """

    number: int
    title: str
    script: str
    rehearsed: float | None


@dataclass(frozen=True, slots=True)
class Runbook:
    """One page.

    Attributes:
        name: The file's, without `.md`.
        title: What it is for: the first line below its name.
        text: All of it.
        needs: Environment variables its steps read.
        before: What a person types first, by hand.
        steps: In order.
    """

    name: str
    title: str
    text: str
    needs: tuple[str, ...]
    before: tuple[str, ...]
    steps: tuple[Step, ...]

    def missing(self, environment: Mapping[str, str]) -> list[str]:
        """Variables it needs that are not set."""
        return [name for name in self.needs if not environment.get(name)]

    def chosen(self, number: int | None) -> list[Step]:
        """The step of that number, or all that can be run.

        Raises:
            NotFoundError: There is none, or nothing to run in it.
        """
        found = [step for step in self.steps if step.script and number in (None, step.number)]
        if not found:
            what = "no step to run" if number is None else f"no step {number} to run"
            raise NotFoundError(f"{self.name} has {what}: `opsctl runbook show {self.name}`")
        return found


def names() -> list[str]:
    """Every page's name."""
    return sorted(path.stem for path in _folder().glob("*.md"))


def read(name: str) -> Runbook:
    """The page of that name.

    Raises:
        NotFoundError: There is none.
        ConfigError: Its steps are numbered wrongly.
    """
    if name not in names():
        raise NotFoundError(f"no runbook {name}: `opsctl runbook list` shows what there is")
    return parse(name, (_folder() / f"{name}.md").read_text("utf-8"))


def parse(name: str, text: str) -> Runbook:
    """Understand a page.

    Raises:
        ConfigError: Its steps are numbered wrongly, or a block to run stands outside of one.
    """
    section = title = ""
    needs, before = list[str](), list[str]()
    steps: list[Step] = []
    for number, fence, content in _parts(text):
        if fence == "sh before":
            before.append(content)
        elif fence == "sh step":
            if not steps or steps[-1].script:
                raise ConfigError(f"{name}.md:{number}: a step has one block to run; this one stands beside it")
            steps[-1] = replace(steps[-1], script=content)
        elif fence is None and (heading := _HEADING.fullmatch(content)):
            if int(heading[1]) != len(steps) + 1:
                raise ConfigError(f"{name}.md:{number}: step {heading[1]} stands where {len(steps) + 1} is expected")
            steps.append(Step(len(steps) + 1, heading[2], "", None))
        elif fence is None and steps and (told := _REHEARSED.match(content)):
            steps[-1] = replace(steps[-1], rehearsed=float(told[1]))
        elif fence is None:
            section = content[3:] if content.startswith("## ") else section
            needs += _NEED.findall(content) if section == "You need" else ()
            title = title or ("" if content.startswith(("#", "<!--")) else content)
    return Runbook(name, title, text, tuple(needs), tuple(before), tuple(steps))


def _parts(text: str) -> Iterator[tuple[int, str | None, str]]:
    """Each line as (its number, None, itself), each block as (its last line's number, what its fence says, itself)."""
    fence: str | None = None
    block: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```") and fence is None:
            fence, block = line[3:].strip(), []
        elif line.startswith("```"):
            yield number, fence, "\n".join(block)
            fence = None
        elif fence is not None:
            block.append(line)
        else:
            yield number, None, line


def execute(script: str, environment: Mapping[str, str], echo: Callable[[str], None]) -> tuple[int, str]:
    """Run one script in bash, as a person would paste it; stops at the first command that fails.

    Args:
        script: The commands. `opsctl` in them is this one.
        environment: Its environment.
        echo: Given each line as it is printed.

    Returns:
        Its exit code, and all it printed, standard error included.

    Raises:
        ConfigError: There is no bash.
    """
    bash = shutil.which("bash")
    if bash is None:
        raise ConfigError("runbooks are run by bash, which is not on the PATH: install it")
    path = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the commands are the runbook's
        [bash, "--norc", "-euo", "pipefail", "-c", script],  # over SSH it would read ~/.bashrc first
        env={**environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        for line in process.stdout:
            echo(line.rstrip("\n"))
            lines.append(line)
    return process.returncode, "".join(lines)


def begin(connection: psycopg.Connection, runbook: Runbook, step: Step, reason: str) -> int:
    """Note that a step begins; the number of its row.

    Raises:
        psycopg.Error: Refused by the database, or it is away.
    """
    parameters = (runbook.name, step.number, step.title, reason)
    row = connection.execute("SELECT ops.runbook_begin(%s, %s, %s, %s)", parameters).fetchone()
    assert row is not None  # noqa: S101 - a function without FROM
    return int(row[0])


def end(connection: psycopg.Connection, row: int, exit_code: int, output: str) -> None:
    """Note what became of it. `output` is redacted by the caller.

    Raises:
        psycopg.Error: Refused by the database, or it is away.
    """
    connection.execute("SELECT ops.runbook_end(%s, %s, %s)", (row, exit_code, output.replace("\0", "�")))


def _folder() -> Path:
    return next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
