"""The query of Grafana's own Postgres data source, which the SDK does not have."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef

PLUGIN = "grafana-postgresql-datasource"


@dataclass
class PostgresQuery(Dataquery):
    """One statement whose answer is a table.

    `time_series` would turn a column of text into a label, silently.
    """

    uid: str
    sql: str
    ref_id: str = "A"

    def build(self) -> PostgresQuery:
        """Itself, as the SDK's panels ask of a builder."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana's editor for SQL writes it."""
        return {
            "datasource": DataSourceRef(type_val=PLUGIN, uid=self.uid),
            "editorMode": "code",
            "format": "table",
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": self.ref_id,
        }
