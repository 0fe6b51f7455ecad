"""Every alert's rule is loaded by Prometheus, and its cases notice whatever is broken in it: counted, none missing.

Each rule is broken in six ways, all of a subject at once; `promtool test rules` must then complain about each alert.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from opsctl import catalog
from opsctl.render import rules
from opslib.alerting import MINUTE, Above, Absent, Alert, Always, Below, BurnRate, Severity, Unit
from opslib.spec import Histogram, Subject

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "prometheus"
SUBJECTS = {subject.name: subject for subject in catalog.watched() if subject.alerts}
ALERTS = {alert.name: (subject, alert) for subject in SUBJECTS.values() for alert in subject.alerts}


@pytest.fixture(scope="session")
def promtool() -> str:
    """Debian's, which must be there: a skipped test is a test nobody misses."""
    found = shutil.which("promtool")
    if found is None:
        pytest.fail("these tests need promtool: `apt-get install prometheus`")
    return found


def run(*command: str | Path) -> tuple[int, str]:
    """Exit code and everything printed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def test_prometheus_takes_the_configuration(promtool: str) -> None:
    """With every rule file it names, and no lint."""
    assert run(promtool, "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / "prometheus.yml")[0] == 0
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    code, said = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert code == 0, said
    assert [file.stem for file in files] == sorted(SUBJECTS)


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_cases_hold(promtool: str, name: str) -> None:
    """The hand-written cases, a restart of everything among them, on the rules as they are."""
    cases = PROMETHEUS / "tests" / f"{name}_test.yaml"
    code, said = run(promtool, "test", "rules", cases)
    assert code == 0, said
    groups = [group["name"] for group in yaml.safe_load(cases.read_text("utf-8"))["tests"]]
    assert "restarts" in groups, "a restart of exporter, database and Prometheus calls nobody: write that case"


def looser(alert: Alert) -> Alert:
    """Fires a little too early; at 0 the threshold itself is enough, which any number below it says, too."""
    match alert.when:
        case Above(signal, threshold):
            return dataclasses.replace(alert, when=Above(signal, threshold * 0.98 if threshold else -1e-9))
        case Below(signal, threshold):
            return dataclasses.replace(alert, when=Below(signal, threshold * 1.02 if threshold else 1e-9))
        case BurnRate(objective, speed):
            wider = dataclasses.replace(objective, target=1 - (1 - objective.target) * 0.98)
            return dataclasses.replace(alert, when=BurnRate(wider, speed))
    return alert


def unguarded(alert: Alert) -> Alert:
    """One event fewer is enough to judge a promise."""
    if not isinstance(alert.when, BurnRate):
        return alert
    objective = dataclasses.replace(alert.when.objective, min_events=alert.when.objective.min_events - 1)
    return dataclasses.replace(alert, when=BurnRate(objective, alert.when.speed))


def timed(alert: Alert, seconds: int) -> Alert:
    """Its `for` is this much longer."""
    return dataclasses.replace(alert, for_=max(alert.for_ + seconds, 0))


MUTATIONS: dict[str, tuple[Callable[[Alert], Alert], str]] = {
    "quiet at the threshold": (looser, "no case stays quiet at its threshold"),
    "quiet before its time": (lambda alert: timed(alert, -MINUTE), "no case is quiet a minute before `for` is over"),
    "firing in time": (lambda alert: timed(alert, MINUTE), "no case fires as soon as `for` is over"),
    "through a restart": (
        lambda alert: dataclasses.replace(alert, keep_firing_for=0),
        "no case fires on while its series are gone",
    ),
    "few events": (unguarded, "no case has one event too few"),
}


def differ(mutate: Callable[[Alert], Alert], subject: Subject) -> set[str]:
    """The alerts of a subject which a mutation changes at all."""
    return {alert.name for alert in subject.alerts if mutate(alert) != alert}


def complaints(promtool: str, subject: Subject, text: str, folder: Path, only: str = "") -> str:
    """What the subject's cases say of these rules; of all cases, or of one group."""
    cases = PROMETHEUS / "tests" / f"{subject.name}_test.yaml"
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "rules" / f"{subject.name}.yml").write_text(text)
    content = yaml.safe_load(cases.read_text("utf-8"))
    content["tests"] = [group for group in content["tests"] if only in {"", group["name"]}]
    (folder / "tests" / cases.name).write_text(yaml.safe_dump(content))
    return run(promtool, "test", "rules", folder / "tests" / cases.name)[1]


def noticed(said: str) -> set[str]:
    """The alerts promtool complains about."""
    return set(re.findall(r"alertname: (\w+), time:", said))


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_alert_has_the_case(promtool: str, name: str, mutation: str, tmp_path: Path) -> None:
    """Break all rules of a subject in one way: each alert has a case that notices."""
    subject, (mutate, lacking) = SUBJECTS[name], MUTATIONS[mutation]
    changed = differ(mutate, subject)
    broken = dataclasses.replace(subject, alerts=tuple(map(mutate, subject.alerts)))
    if mutation != "few events":  # the recording rules are no alert's
        broken = dataclasses.replace(broken, objectives=subject.objectives)
    blind = changed - noticed(complaints(promtool, subject, rules.rules(broken), tmp_path))
    assert not blind, f"{lacking}: {sorted(blind)} (prometheus/tests/{name}_test.yaml)"


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_alert_has_the_absent_case(promtool: str, name: str, tmp_path: Path) -> None:
    """Rules that fire where there is nothing at all: each alert has a case that notices."""
    subject = SUBJECTS[name]
    parsed = yaml.safe_load(rules.rules(subject))
    wanted = {alert.name for alert in subject.alerts if not isinstance(alert.when, Always | Absent)}
    for group in parsed["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") in wanted:
                rule["expr"] = f"({rule['expr']}) or on () vector(1)"
    absent = noticed(complaints(promtool, subject, yaml.safe_dump(parsed), tmp_path, only="absent"))
    assert absent == wanted, (
        f"no case without any series: {sorted(wanted - absent)} (prometheus/tests/{name}_test.yaml)"
    )


def test_nothing_was_left_out() -> None:
    """The count: every alert goes through each of the mutations it can undergo, and none is exempt by accident."""
    exempt = {
        "quiet at the threshold": {"Watchdog", "ExporterAbsent"},  # they have no threshold
        "through a restart": {"Watchdog"},  # always fires
    }
    for mutation, (mutate, _) in MUTATIONS.items():
        changed = {name for subject in SUBJECTS.values() for name in differ(mutate, subject)}
        if mutation == "few events":
            assert changed == {name for name, (_, alert) in ALERTS.items() if isinstance(alert.when, BurnRate)}
        elif mutation == "quiet before its time":
            assert changed == {name for name, (_, alert) in ALERTS.items() if alert.for_}
        else:
            assert ALERTS.keys() - changed == exempt.get(mutation, set()), mutation


def families() -> Iterator[str]:
    """Every name of a series an exporter may write, and what Prometheus adds for each target."""
    yield "up"
    for subject in catalog.watched():
        for metric in subject.metrics:
            yield from (
                (f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))
                if isinstance(metric, Histogram)
                else (metric.name,)
            )


@pytest.mark.parametrize("name", SUBJECTS)
def test_expressions_name_metrics_there_are(name: str) -> None:
    """Any name is fine with promtool; a metric renamed would silence its alert for good."""
    subject = SUBJECTS[name]
    texts = [signal.expr for signal in subject.signals]
    texts += [text for objective in subject.objectives for text in (objective.errors, objective.total)]
    named = {found for text in texts for found in re.findall(r"\b(?:bitloot|ops)_\w+(?=[{\[\s)]|$)", _bare(text))}
    assert named
    assert named <= set(families())


def _bare(text: str) -> str:
    return re.sub(r'"[^"]*"', '""', text)


@pytest.mark.parametrize("name", [subject.name for subject in catalog.watched()])
def test_a_signal_calls_or_says_why_not(name: str) -> None:
    """Nobody is called for it: that is a decision, with a reason; never both."""
    subject = next(subject for subject in catalog.watched() if subject.name == name)
    calling = {id(alert.when.signal) for alert in subject.alerts if isinstance(alert.when, Above | Below | Absent)}
    for signal in subject.signals:
        assert (id(signal) in calling) != bool(signal.no_alert), f"{signal.title}: an alert, or no_alert with a reason"
        assert signal.title, signal.expr
        assert signal.means.endswith("."), f"{signal.title}: what it shows is a sentence"
    assert calling <= {id(signal) for signal in subject.signals}, "an alert's signal is one of its subject's"
    burning = {alert.when.objective.name for alert in subject.alerts if isinstance(alert.when, BurnRate)}
    assert burning == {objective.name for objective in subject.objectives}, "a promise nobody is called for"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_reads_well(name: str) -> None:
    """CamelCase, a reason, a summary that shows the number where there is one."""
    _, alert = ALERTS[name]
    assert re.fullmatch(r"([A-Z][a-z]+)+", name)
    assert alert.because
    assert not alert.because.endswith("."), "a reason stands behind a dash, not as a sentence"
    assert len(alert.summary) < 120
    yes_no = isinstance(alert.when, Above | Below) and alert.when.signal.unit is Unit.YES_NO
    plain = isinstance(alert.when, Absent | Always) or yes_no or name in {"BackupNone", "AuditShrunk", *ONCE}
    assert plain != ("$value" in alert.summary), "the number belongs into the summary, unless it is yes or no"
    if alert.severity is Severity.PAGE:
        assert alert.for_ <= 30 * MINUTE or name == "BackupNone", "a page that waits that long is a ticket"


ONCE = {"QueueEventsLost", "JobTimeouts"}
"""Once is enough, and how often says no more."""


def test_names_are_unique() -> None:
    """A runbook and a route belong to one alert."""
    assert len(ALERTS) == sum(len(subject.alerts) for subject in SUBJECTS.values())
