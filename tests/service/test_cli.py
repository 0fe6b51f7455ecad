"""`opsctl` as a person meets it: clear errors, sensible exit codes, tables and JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OPSCTL = Path(sys.executable).parent / "opsctl"


def opsctl(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command with just these settings."""
    environment = {"PATH": os.environ["PATH"], **settings}
    return subprocess.run(
        [OPSCTL, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command() -> None:
    """From the installed script, with nothing set."""
    ended = opsctl("--help")
    assert ended.returncode == 0
    assert all(word in ended.stdout for word in ("check-config", "contract", "exporter", "migrate", "completion"))


def test_version_names_the_build() -> None:
    """Version and commit."""
    ended = opsctl("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("opsctl 0.1.0 (")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(shell: str) -> None:
    """And it completes our command."""
    ended = opsctl("completion", shell)
    assert ended.returncode == 0
    assert "_OPSCTL_COMPLETE" in ended.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("que", {"queues"}),
        ("orders list --st", {"--status"}),
        ("export ", {"orders", "payments", "webhooks", "reservations", "job-runs", "audit"}),
        ("flags set kinguin_enabled ", {"on", "off"}),
    ],
)
def test_a_shell_completes(typed: str, offered: set[str]) -> None:
    """The script in a real bash; and what zsh and fish ask for with theirs."""
    words = ["opsctl", *typed.split(" ")]
    script = (
        f"source <(opsctl completion bash); COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); "
        f"COMP_CWORD={len(words) - 1}; _opsctl_completion opsctl; printf '%s\n' \"${{COMPREPLY[@]}}\""
    )
    path = f"{OPSCTL.parent}:{os.environ['PATH']}"
    ended = subprocess.run(["bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert set(ended.stdout.split()) == offered, ended.stderr
    for shell, at in (("zsh", str(len(words) - 1)), ("fish", words[-1])):
        asked = {"_OPSCTL_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": at}
        assert offered <= set(re.split(r"[\s,]+", opsctl(**asked).stdout)), shell


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nonsense",), 2, "No such command"),
        (("exporter", "run", "nonsense"), 2, "nonsense"),
        (("exporter", "run"), 2, "no exporter has its settings"),
        (("exporter", "run", "ledger"), 2, "ledger needs DATABASE_URL"),
        (("exporter", "run", "providers"), 2, "NOWPAYMENTS_API_KEY or KINGUIN_API_KEY"),
        (("exporter", "run", "queues", "--listen", "9401"), 2, "--listen"),
        (("migrate", "up"), 2, "DATABASE_URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_use_is_exit_code_2_and_says_what_to_do(arguments: tuple[str, ...], code: int, says: str) -> None:
    """Never a traceback."""
    ended = opsctl(*arguments)
    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unreachable_database_is_exit_code_5(tmp_path: Path) -> None:
    """A failure of the world, not of the words."""
    ended = opsctl("migrate", "status", DATABASE_URL=f"postgresql:///shop?host={tmp_path}")
    assert ended.returncode == 5
    assert "Traceback" not in ended.stderr


def test_check_config_shows_every_error_at_once() -> None:
    """One line each, none of them a value."""
    ended = opsctl("check-config", REDIS_URL="mysql://x:s3cret@h", OPS_LISTN="1", OPS_LEDGER_SETTLE_SECONDS="soon")
    assert ended.returncode == 2
    assert ("did you mean OPS_LISTEN" in ended.stderr, "s3cret" in ended.stderr) == (True, False)
    assert {"REDIS_URL", "OPS_LEDGER_SETTLE_SECONDS"} <= set(ended.stderr.replace(":", " ").split())


def test_check_config_in_json() -> None:
    """Secrets are set or unset; exporters say what they miss."""
    ended = opsctl("check-config", "--json", REDIS_URL="redis://:s3cret@h")
    told = json.loads(ended.stdout)
    shown = {line["name"]: line["value"] for line in told["settings"]}
    assert (shown["REDIS_URL"], shown["DATABASE_URL"]) == ("set", "unset")
    assert told["exporters_miss"]["queues"] == []
    assert told["exporters_miss"]["ledger"] == ["DATABASE_URL"]


def test_no_colour_when_nobody_is_watching() -> None:
    """A pipe gets plain text."""
    assert "\x1b" not in (ended := opsctl("check-config")).stdout + ended.stderr
