"""The boards as files: whole, explained, typed as Grafana types them, and asking only what an exporter answers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from opsctl import catalog
from opsctl.render import dashboards
from opslib.alerting import Above, Absent, Below
from tests.boards.checks import all_problems, known
from tests.boards.model import ROOT, boards, panels, promql_of
from tests.boards.typed import complaints

WANTED = {
    "IPN OK / Invalid (5m)",
    "Webhook outcomes (5m)",
    "Queue Waiting",
    "Queue Active",
    "Queue Failed",
    "Jobs Completed vs Failed (rate)",
    "Job Duration",
    "Underpaid (today)",
    "Email Failures (24h)",
}
"""The nine panels the shop asked for."""
LAMPS = ["API", "Queue", "DB", "Cache", "E-mail", "Incidents"]


def test_nothing_is_wrong_with_any_board() -> None:
    """Names, labels, titles, units, colours, places, sources, variables and links of every board hold."""
    assert all_problems(boards(), known()) == []


def test_the_panels_that_were_asked_for() -> None:
    """The nine panels are on their board, and the six lamps stand first, asking every 15 s."""
    found = boards()
    assert {panel["title"] for panel in panels(found["fulfilment"])} >= WANTED
    assert [panel["title"] for panel in panels(found["overview"])][:6] == LAMPS
    assert found["overview"]["refresh"] == "15s"


def test_every_signal_is_on_a_board() -> None:
    """Whatever is worth an alert or a reason for none is worth looking at."""
    asked = [expr for board in boards().values() for _, expr in promql_of(board)]
    missing = [
        signal.title
        for subject in catalog.watched()
        for signal in subject.signals
        if not any(signal.expr in expr for expr in asked)
    ]
    assert missing == []


def test_an_alert_leads_to_the_board_that_shows_it() -> None:
    """The link in every notification is one of ours, and what the alert looks at is on it."""
    asked = {f"d/{board['uid']}": [expr for _, expr in promql_of(board)] for board in boards().values()}
    files = sorted(ROOT.glob("prometheus/rules/*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    links = {
        rule["alert"]: rule["annotations"]["board"] for group in groups for rule in group["rules"] if "alert" in rule
    }
    assert set(links.values()) <= asked.keys()
    alerts = [alert for subject in catalog.watched() for alert in subject.alerts]
    assert links.keys() == {alert.name for alert in alerts}
    lost = [
        alert.name
        for alert in alerts
        if isinstance(alert.when, Above | Below | Absent)
        and not any(alert.when.signal.expr in expr for expr in asked[links[alert.name]])
    ]
    assert lost == []


def test_grafana_steps_as_prometheus_scrapes() -> None:
    """`timeInterval` is the scrape interval: a smaller step would draw gaps that are none."""
    scraped = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"]
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/bitloot.yml").read_text("utf-8"))["datasources"]
    (prometheus,) = [source for source in sources if source["type"] == "prometheus"]
    assert prometheus["jsonData"]["timeInterval"] == scraped
    assert all("password" in source["secureJsonData"] for source in sources if source is not prometheus)
    assert all(
        source["secureJsonData"]["password"].startswith("$__file{") for source in sources if source is not prometheus
    )


@pytest.mark.parametrize("name", catalog.BOARDS)
def test_the_same_board_is_always_the_same_text(name: str) -> None:
    """Rendered twice, and as committed."""
    board = catalog.load(catalog.BOARDS[name])
    assert dashboards.dashboard(board) == dashboards.dashboard(board)
    assert dashboards.dashboard(board) == (ROOT / f"grafana/dashboards/{name}.json").read_text("utf-8")


def test_the_types_are_grafanas(tmp_path: Path) -> None:
    """TypeScript finds each board, panel, option and variable to be what Grafana says; and can say otherwise."""
    found = boards()
    assert complaints(found, tmp_path) == []
    spoiled = copy.deepcopy(found["queues"])
    first = next(panels(spoiled))
    first["gridPos"]["h"] = "8"
    first["options"]["legend"]["displayMode"] = "lists"
    said = "\n".join(complaints({"queues": spoiled}, tmp_path))
    assert "'string' is not assignable to type 'number'" in said
    assert '"lists"' in said
