"""One order: what happened to it, on one time line? `opsctl orders show` tells the same, with the queues' jobs."""

from opsctl.boards import sql
from opsctl.boards.sql import Given, Key
from opsctl.render.board import Board, Link, Look, Panel, Row, Source, Sql, TextBox
from opslib.alerting import Unit
from opslib.areas.records import PAGE

ADDRESS = "/d/bitloot-order?var-order=${__value.raw}&${__url_time_range}"
WHOLE = Given(str(PAGE))
ORDER = Key("order", needed=True)

ONE = sql.asking("order_one", order=ORDER)
PAYMENTS = sql.asking("payments_newest", order=ORDER, limit=WHOLE)
RESERVATIONS = sql.asking("reservations_newest", order=ORDER, limit=WHOLE)
EXTERNALS = (
    f"SELECT array_agg(known.id) FROM (\nSELECT paid.external_id::text AS id FROM (\n{PAYMENTS}\n) paid\nUNION\n"
    f"SELECT one.reservation_id::text FROM (\n{ONE}\n) one\n) known"
)
"""What its providers call it."""
WEBHOOKS = sql.asking("webhooks_about", order=ORDER, externals=Given(f"({EXTERNALS})"), limit=WHOLE)
KEYS = sql.asking("order_deliveries", order=ORDER)

STORY = f"""\
SELECT story.at, story.area, story.what, story.state FROM (
SELECT o.created_at AS at, 'order' AS area,
       concat('placed, ', round(o.total, 2), ' EUR, ', o.source) AS what, '' AS state FROM (
{ONE}
) o
UNION ALL SELECT o.updated_at, 'order', 'became', o.status FROM (
{ONE}
) o WHERE o.updated_at - o.created_at > interval '1 ms'
UNION ALL SELECT p.created_at, 'payment', concat_ws(' ', 'requested at', p.provider, p.external_id), '' FROM (
{PAYMENTS}
) p
UNION ALL SELECT p.updated_at, 'payment', concat_ws(' ', p.provider, p.external_id, 'became'), p.status FROM (
{PAYMENTS}
) p WHERE p.updated_at - p.created_at > interval '1 ms'
UNION ALL SELECT w.occurred_at, 'webhook', concat_ws(' ', w.event_type,
                 coalesce(w.payment_status, w.claimed_status), w.error), w.outcome FROM (
{WEBHOOKS}
) w
UNION ALL SELECT r.reserved_at, 'reservation', concat_ws(' ', r.reservation_id, 'set aside at', r.place), r.state FROM (
{RESERVATIONS}
) r
UNION ALL SELECT k.created_at, 'key', 'handed out', 'delivered' FROM (
{KEYS}
) k
UNION ALL SELECT k.viewed_at, 'key', concat('opened; ', k.download_count, ' downloads'), '' FROM (
{KEYS}
) k WHERE k.viewed_at IS NOT NULL
) story ORDER BY story.at NULLS LAST, story.area
"""

BOARD = Board(
    uid="bitloot-order",
    title="One order",
    means="What happened to one order. `opsctl orders show` adds the jobs of its queues, and what to do.",
    span="7d",  # as the records it is reached from
    refresh="5m",
    variables=(TextBox("order", "Order", "An order's id."),),
    rows=(
        Row(
            "The order",
            (
                Panel(
                    title="The order",
                    means="Its row. The address is masked.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.APP, ONE),),
                    width=24,
                    height=4,
                    empty="there is no such order",
                    units={"total": Unit.EUR},
                    links=(
                        Link(
                            "order_id",
                            "Its payments, notifications and reservations",
                            "/d/bitloot-records?var-order=${__value.raw}&${__url_time_range}",
                        ),
                    ),
                ),
                Panel(
                    title="What happened",
                    means="Its rows, its providers' calls and its keys, in order. A duplicate that says `finished` "
                    "and an order that still waits: the notification was lost.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.APP, STORY),),
                    width=24,
                    height=11,
                    empty="nothing",
                ),
                Panel(
                    title="Items",
                    means="What was bought.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.APP, sql.asking("order_items", order=ORDER)),),
                    width=12,
                    height=6,
                    empty="none",
                    units={"unit_price": Unit.EUR},
                    hidden=("created_at",),
                ),
                Panel(
                    title="Keys handed out",
                    means="When each was delivered and opened; of the key itself nothing.",
                    unit=Unit.MONEY,
                    look=Look.TABLE,
                    queries=(Sql(Source.APP, KEYS),),
                    width=12,
                    height=6,
                    empty="none yet",
                    hidden=("key_id",),
                ),
            ),
        ),
    ),
)
