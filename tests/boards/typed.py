"""The boards against Grafana's own types: npm's `@grafana/schema`, and TypeScript to compare."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.boards.model import Json, panels
from tests.service.queue_kit import installed

SCHEMA = "@grafana/schema@12"
OPTIONS = {
    "stat": "stat/panelcfg/x/StatPanelCfg",
    "timeseries": "timeseries/panelcfg/x/TimeSeriesPanelCfg",
    "bargauge": "bargauge/panelcfg/x/BarGaugePanelCfg",
    "gauge": "gauge/panelcfg/x/GaugePanelCfg",
    "heatmap": "heatmap/panelcfg/x/HeatmapPanelCfg",
    "state-timeline": "statetimeline/panelcfg/x/StateTimelinePanelCfg",
    "table": "table/panelcfg/x/TablePanelCfg",
}
"""Where the type of a panel's options is found, by the panel's type."""
LOOSE = """\
type Loose<T> = T extends boolean ? T
  : T extends string ? `${T}`
  : T extends number ? (number extends T ? number : `${T}` extends `${infer N extends number}` ? N : never)
  : T extends (infer U)[] ? Loose<U>[]
  : T extends object ? { [K in keyof T]: Loose<T[K]> }
  : T;"""
"""A member of an enum is its value once it is JSON."""
CONFIGURED = ("timeseries", "heatmap", "state-timeline", "table")
"""Those with settings of their own for each field."""


def folder() -> Path:
    """Where the packages are, installed when they are not there yet."""
    return installed("grafana-schema-12", SCHEMA, "typescript@5")


def complaints(boards: Mapping[str, Json], where: Path) -> list[str]:
    """What the compiler says, one line each."""
    place = where / "typed"
    place.mkdir(exist_ok=True)
    (place / "node_modules").unlink(missing_ok=True)
    (place / "node_modules").symlink_to(folder() / "node_modules")
    for name, board in boards.items():
        (place / f"{name}.ts").write_text(_program(board), "utf-8")
    settings = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "skipLibCheck": True,
            "module": "esnext",
            "target": "es2022",
            "moduleResolution": "bundler",
            "types": [],
        },
        "files": [f"{name}.ts" for name in boards],
    }
    (place / "tsconfig.json").write_text(json.dumps(settings), "utf-8")
    compiler = folder() / "node_modules" / ".bin" / "tsc"
    done = subprocess.run(
        [compiler, "--project", place, "--pretty", "false"], check=False, capture_output=True, text=True, timeout=110
    )
    said = (done.stdout + done.stderr).splitlines()
    assert bool(said) == bool(done.returncode), said
    return said


def _program(board: Json) -> str:
    """A program that compiles if each part is what its type says: literals, so that a misspelt name is too many."""
    used = sorted({panel["type"] for panel in panels(board)})
    lines = [
        "import type { AnnotationQuery, Dashboard, Panel, RowPanel, VariableModel } from '@grafana/schema';",
        "import type { DataQuery } from '@grafana/schema';",
        LOOSE,
    ]
    for kind in used:
        source = f"@grafana/schema/dist/esm/raw/composable/{OPTIONS[kind]}_types.gen"
        lines.append(f"import type * as {_name(kind)} from '{source}';")
    whole = {key: value for key, value in board.items() if key not in ("panels", "templating", "annotations")}
    lines.append(f"export const board: Loose<Dashboard> = {_literal(whole)};")
    lines += [
        f"export const {variable['name']}: Loose<VariableModel> = {_literal(variable)};"
        for variable in board["templating"]["list"]
    ]
    for index, annotation in enumerate(board["annotations"]["list"]):
        # What a data source needs of its own annotations is not in the schema.
        own = {key: value for key, value in annotation.items() if key not in ("expr", "titleFormat", "step")}
        lines.append(f"export const annotation{index}: Loose<AnnotationQuery> = {_literal(own)};")
    for panel in board["panels"]:
        lines += _panel(panel)
    return "\n".join(lines) + "\n"


def _panel(panel: Json) -> list[str]:
    name = f"panel{panel['id']}"
    if panel["type"] == "row":
        return [f"export const {name}: Loose<RowPanel> = {_literal(panel)};"]
    kind = _name(panel["type"])
    lines = [
        f"export const {name}: Loose<Panel> = {_literal(panel)};",
        f"export const {name}Options: Loose<Partial<{kind}.Options>> = {_literal(panel['options'])};",
    ]
    custom = panel["fieldConfig"]["defaults"].get("custom")
    if panel["type"] in CONFIGURED and custom is not None:
        lines.append(f"export const {name}Custom: Loose<Partial<{kind}.FieldConfig>> = {_literal(custom)};")
    base = ("refId", "datasource", "hide", "queryType")
    for index, target in enumerate(panel["targets"]):
        own = {key: value for key, value in target.items() if key in base}
        lines.append(f"export const {name}Query{index}: Loose<DataQuery> = {_literal(own)};")
    return lines


def _name(kind: str) -> str:
    return kind.replace("-", "_")


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
