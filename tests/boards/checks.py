"""What may be wrong with a board, said without any server: one line for each thing."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import promql_parser
import yaml

from opsctl import catalog
from opslib.spec import Counter as Count
from opslib.spec import Histogram
from tests.boards.model import ROOT, Json, panels, promql_of, sql_of, targets, variables

MOST_PANELS = 20
SLOW = ("1m", "5m")
KPI = "Overview"
"""The one board that may ask every 15 s: its lamps ask Prometheus alone."""

Known = Mapping[str, frozenset[str] | None]
"""Metric names with their labels; None: any."""

OTHERS: Known = {
    "up": None,
    "scrape_samples_scraped": None,
    "process_resident_memory_bytes": None,
    "ALERTS": None,
}
"""What Prometheus itself and the client library of every exporter add."""
ADDED = frozenset({"instance", "job", "__name__", "le"})
RATES = frozenset({"rate", "increase", "irate", "resets", "changes", "compared"})


def known() -> Known:
    """Every series an exporter's registry or a recording rule can give."""
    found: dict[str, frozenset[str] | None] = dict(OTHERS)
    for subject in catalog.watched():
        for metric in subject.metrics:
            names = [metric.name]
            if isinstance(metric, Histogram):
                names = [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
            found |= dict.fromkeys(names, frozenset(metric.labels) | ADDED)
        for objective in subject.objectives:
            rules = yaml.safe_load((ROOT / f"prometheus/rules/{subject.name}.yml").read_text("utf-8"))
            records = [rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule]
            found |= {name: frozenset(objective.by) | ADDED for name in records if f":{objective.name}:" in name}
    return found


def promql(board: Json, names: Known) -> Iterator[str]:
    """What no server would say: a name that is in no registry is an empty panel for ever."""
    counters = {m.name for subject in catalog.watched() for m in subject.metrics if isinstance(m, Count)}
    for place, text in promql_of(board):
        try:
            tree = promql_parser.parse(_plain(text))
        except ValueError as exc:
            yield f"{place}: no PromQL: {exc}"
            continue
        for selector, function in _selectors(tree):
            yield from (f"{place}: {problem}" for problem in _selector(selector, function, names, counters))


def _plain(text: str) -> str:
    return re.sub(r"\$\w+", "anything", text)


def _selectors(node: object, function: str = "") -> Iterator[tuple[promql_parser.VectorSelector, str]]:
    match node:
        case promql_parser.VectorSelector():
            yield node, function
        case promql_parser.MatrixSelector():
            yield node.vector_selector, function
        case promql_parser.Call():
            for argument in node.args:
                yield from _selectors(argument, node.func.name if node.func.name in RATES else function)
        case promql_parser.BinaryExpr():
            # `> 0` asks whether there ever was one, and shows no number that only grows.
            yield from _selectors(node.lhs, "compared" if isinstance(node.rhs, promql_parser.NumberLiteral) else "")
            yield from _selectors(node.rhs, "compared" if str(node.op) in ("and", "unless") else "")
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from _selectors(node.expr, function)
        case promql_parser.SubqueryExpr():
            yield from _selectors(node.expr, function)


def _selector(selector: promql_parser.VectorSelector, function: str, names: Known, counters: set[str]) -> Iterator[str]:
    name = selector.name
    if name not in names:
        yield f"no exporter has {name}"
        return
    labels = names[name]
    for matcher in selector.matchers.matchers:
        if labels is not None and matcher.name not in labels:
            yield f"{name} has no label {matcher.name}"
    if name in counters and function not in RATES:
        yield f"{name} only grows: ask for its increase"


def lint(board: Json, uids: Mapping[str, Json]) -> Iterator[str]:
    """Our own rules (docs: every panel explains itself; absence is never red), and dashboard-linter's.

    Of dashboard-linter's are left out: variables for the data source, job and instance, for ours are provisioned with
    fixed uids and one job; and `$__rate_interval`, for a panel shows the very expression its alert evaluates.
    """
    yield from _whole(board)
    for panel in panels(board):
        yield from (f"{panel['title'] or panel['id']}: {problem}" for problem in _panel(panel))
    yield from _grid(board)
    yield from _sources(board)
    yield from _variables(board)
    yield from _links(board, uids)


def _whole(board: Json) -> Iterator[str]:
    if len(list(panels(board))) > MOST_PANELS:
        yield f"more than {MOST_PANELS} panels"
    if board["timezone"] != "utc":
        yield "its times are not UTC"
    if board["refresh"] not in SLOW and board["title"] != KPI:
        yield f"refreshes every {board['refresh']}"
    if board["editable"]:
        yield "is editable: a change by hand is lost at the next deploy"
    if not board["description"] or not board["uid"] or not board["tags"]:
        yield "has no description, uid or tags"
    if [annotation["name"] for annotation in board["annotations"]["list"]] != ["Incidents", "Deploys"]:
        yield "does not show incidents and deploys"


def _panel(panel: Json) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    for what in ("title", "description"):
        if not panel.get(what):
            yield f"has no {what}"
    for what in ("unit", "noValue"):
        if not defaults.get(what):
            yield f"has no {what}"
    if not panel["targets"]:
        yield "asks nothing"
    yield from _colours(panel)
    for target in panel["targets"]:
        if "rawSql" in target and (target["format"], panel["type"]) != ("table", "table"):
            yield "shows rows otherwise than as a table: text would become labels"
        if "expr" in target and target["instant"] == target["range"]:
            yield "asks for both now and the past, or for neither"


def _colours(panel: Json) -> Iterator[str]:
    """What is not known is never red, and what was declined neither."""
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults["thresholds"]["steps"]
    if steps[0] != {"color": "text", "value": None}:
        yield "colours what is not known"
    if [step["value"] for step in steps[1:]] != sorted(step["value"] for step in steps[1:]):
        yield "its thresholds are out of order"
    for mapping in defaults["mappings"]:
        if mapping["type"] == "special" and mapping["options"]["result"]["color"] != "text":
            yield "colours what is not known"
    for override in panel["fieldConfig"]["overrides"]:
        declined = re.search(r"duplicate|invalid|declined|refused", str(override["matcher"]["options"]))
        for value in override["properties"]:
            if declined and value["id"] == "color" and value["value"]["fixedColor"] == "red":
                yield "declined is no error"


def _grid(board: Json) -> Iterator[str]:
    places = [(panel["id"], panel["gridPos"]) for panel in board["panels"]]
    for number, count in Counter(number for number, _ in places).items():
        if count > 1 or number < 1:
            yield f"panel id {number} is there {count} times"
    for (one, a), (two, b) in itertools.combinations(places, 2):
        if (
            a["x"] < b["x"] + b["w"]
            and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"]
            and b["y"] < a["y"] + a["h"]
        ):
            yield f"panels {one} and {two} overlap"
    for number, place in places:
        if place["x"] + place["w"] > 24:
            yield f"panel {number} is wider than the grid"


def _sources(board: Json) -> Iterator[str]:
    provisioned = yaml.safe_load((ROOT / "grafana/provisioning/datasources/bitloot.yml").read_text("utf-8"))
    there = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    for panel, target in targets(board):
        for source in (panel["datasource"], target["datasource"]):
            if (source["type"], source["uid"]) not in there:
                yield f"{panel['title']}: no data source {source['uid']} is provisioned"
            if source != panel["datasource"]:
                yield f"{panel['title']}: asks two sources"
    for one in (*board["annotations"]["list"], *(v for v in variables(board).values() if v["type"] == "query")):
        if (one["datasource"]["type"], one["datasource"]["uid"]) not in there:
            yield f"{one['name']}: no data source {one['datasource']['uid']} is provisioned"


def _variables(board: Json) -> Iterator[str]:
    there = variables(board)
    used = {name for _, _, text in sql_of(board) for name in re.findall(r"\$\{(\w+)", text)}
    used |= {name for _, text in promql_of(board) for name in re.findall(r"\$\{?(\w+)", text)}
    yield from (f"no variable {name}" for name in sorted(used - there.keys()))
    yield from (f"${name} is not used" for name in sorted(there.keys() - used))
    for name, variable in there.items():
        if not variable.get("label") or not variable.get("description"):
            yield f"${name} has no label or description"
    for place, _, text in sql_of(board):
        # The only ways in are the two macros and a variable that brings its own quotes.
        left = re.sub(r"\$\{\w+:sqlstring\}|\$__time(From|To)\(\)", "", text)
        if "$" in left:
            yield f"{place}: something goes into SQL without its quotes"
        if re.search(r"'\$\{|\}'", text.replace("'{'\n", "").replace("\n'}'", "")):
            yield f"{place}: quotes around a variable that brings its own"


def _links(board: Json, uids: Mapping[str, Json]) -> Iterator[str]:
    for panel in panels(board):
        for override in panel["fieldConfig"]["overrides"]:
            for value in override["properties"]:
                for link in value["value"] if value["id"] == "links" else ():
                    yield from (f"{panel['title']}: {problem}" for problem in _link(link["url"], uids))


def _link(url: str, uids: Mapping[str, Json]) -> Iterator[str]:
    path, _, query = url.partition("?")
    target = uids.get(path.removeprefix("/d/"))
    if target is None:
        yield f"{path} leads nowhere"
        return
    for name in re.findall(r"var-(\w+)=", query):
        if name not in variables(target):
            yield f"{path} has no variable {name}"


def all_problems(everything: Mapping[str, Json], names: Known) -> list[str]:
    """Everything wrong with all boards that can be told without a server."""
    uids = {board["uid"]: board for board in everything.values()}
    found: list[Callable[[Json], Iterator[str]]] = [lambda b: promql(b, names), lambda b: lint(b, uids)]
    problems = [
        f"{name}: {problem}" for name, board in everything.items() for check in found for problem in check(board)
    ]
    if len(uids) != len(everything):
        problems.append("two boards have one uid")
    if everything.keys() != catalog.BOARDS.keys():
        problems.append("not every board of the catalog has its file")
    return problems
