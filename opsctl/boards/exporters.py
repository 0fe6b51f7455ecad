"""The exporters themselves: does each source answer, and can the other boards be believed?"""

from exporters.signals import app, ledger
from exporters.signals.itself import ALERTS, BUILD, DROPPED, DURATION, LAG, PAGE, SOURCE, STALE
from opsctl.render.board import Board, Colour, Look, Panel, Prom, Row
from opsctl.render.signals import panel
from opslib.alerting import Unit

ANSWERS = {"0": ("does not answer", Colour.BAD), "1": ("answers", Colour.GOOD)}

BOARD = Board(
    uid="bitloot-exporters",
    title="Exporters",
    means="Does each source answer, and can the other boards be believed?",
    rows=(
        Row(
            "Is anybody watching?",
            (
                panel(PAGE, ALERTS, look=Look.TIMELINE, width=8, words=ANSWERS, empty="no exporter is scraped"),
                panel(SOURCE, ALERTS, look=Look.TIMELINE, width=16, words=ANSWERS, empty="no exporter is scraped"),
            ),
        ),
        Row(
            "Do the numbers hold?",
            (
                panel(LAG, ALERTS, width=8),
                panel(DROPPED, ALERTS, width=8, only_above_zero=True),
                panel(ledger.MISSED, ledger.ALERTS, width=8, only_above_zero=True),
                panel(ledger.RECLASSIFIED, ledger.ALERTS, width=8, only_above_zero=True),
                panel(
                    ledger.CONTRACT,
                    ledger.ALERTS,
                    title="Contract",
                    look=Look.STAT,
                    width=4,
                    height=8,
                    words={"0": ("broken", Colour.BAD), "1": ("whole", Colour.GOOD)},
                    empty="not known",
                ),
                panel(ledger.INDEXES, ledger.ALERTS, look=Look.STAT, width=4, height=8, empty="not known"),
                panel(app.RESTARTS, app.ALERTS, width=8),
                panel(DURATION, ALERTS, width=12),
                panel(STALE, ALERTS, width=12),
            ),
        ),
        Row(
            "Which ones?",
            (
                panel(BUILD, ALERTS, look=Look.TABLE, width=8, hidden=("Value",)),
                Panel(
                    title="Memory",
                    means="Resident memory of each exporter; it does not grow with the shop.",
                    unit=Unit.BYTES,
                    look=Look.SERIES,
                    queries=(Prom('process_resident_memory_bytes{job="bitloot-ops"}', "{{instance}}"),),
                ),
                Panel(
                    title="Series",
                    means="Series on each page, as Prometheus counted them.",
                    unit=Unit.COUNT,
                    look=Look.SERIES,
                    queries=(Prom('scrape_samples_scraped{job="bitloot-ops"}', "{{instance}}"),),
                ),
            ),
        ),
    ),
)
