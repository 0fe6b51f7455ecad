"""`opsctl orders`, `payments`, `webhooks`, `reservations`, `users`, `sessions`, `app-audit`: what an admin looks up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from opsctl.actions.records import unmasking
from opsctl.commands.order import show
from opsctl.kinds import reads
from opsctl.moment import MOMENT
from opsctl.output import Column, Output, printed
from opslib import settings
from opslib.areas import records
from opslib.areas.records import LISTINGS, PAGE

Option = Callable[[Any], Any]

_STATE = Column("status", state=True)
_FROM = click.option("--from", type=MOMENT, metavar="TIME", help="Not before: a date, a time, or 24h (ago). UTC.")
_TO = click.option("--to", type=MOMENT, metavar="TIME", help="Before.")
_EMAIL = click.option("--email", metavar="ADDRESS", help="Exactly this address; it is found without being shown.")
_ORDER = click.option("--order", metavar="ID", help="Of this order.")
_USER = click.option("--user", metavar="ID", help="Of this user.")


def _filter(name: str, text: str, *words: str) -> Option:
    kind: click.ParamType[str] = click.Choice(words) if words else click.STRING
    return click.option(f"--{name}", type=kind, metavar=None if words else name.upper(), help=text)


def _either(yes: str, no: str, text: str) -> Option:
    return click.option(f"--{yes}/--{no}", default=None, help=text)


def _list(name: str, text: str, columns: Sequence[Column | str], *options: Option) -> click.Command:
    """A command that prints one page of a listing; each option's name is a parameter of its query."""
    listing = LISTINGS[name]

    def list_(
        *, output: Output, limit: int, offset: int, after: str | None, unmask: bool = False, **filters: Any
    ) -> None:
        if after and offset:
            raise click.UsageError("--after and --offset exclude each other: a key says already where to go on")
        if (external := filters.get("external")) is not None and name == "webhooks":
            filters["externals"] = [external]
        with records.connect(settings.load().reveal("DATABASE_URL")) as connection:
            page = records.page(connection, listing, filters, limit=limit, offset=offset, after=after)
            if unmask:
                records.unmask(connection, listing, page.rows)
        output.rows(page.rows, columns, nothing=f"no {name} like that")
        if page.next and output.for_people:
            click.echo(f"more: --after {page.next}", err=True)

    command: Any = printed(unmasking(name)(list_) if listing.address else reads(list_))
    for option in reversed(
        (
            *options,
            click.option("--limit", type=click.IntRange(1, PAGE), default=20, show_default=True, help="Rows at most."),
            click.option("--offset", type=click.IntRange(0, 10_000), default=0, help="Rows to pass over."),
            click.option("--after", metavar="KEY", help="Go on where a page ended, at the price of the first page."),
        )
    ):
        command = option(command)
    return click.command("list", help=text)(command)


def _group(name: str, text: str, *commands: click.Command) -> click.Group:
    return click.Group(name, commands={str(command.name): command for command in commands}, help=text)


orders = _group(
    "orders",
    "What was ordered, and what became of it.",
    _list(
        "orders",
        "List orders, newest first.",
        ("order_id", "email", _STATE, Column("total", "EUR"), Column("created_at", "Created (UTC)"), "source"),
        _filter("status", "In this state, as the application writes it: paid, fulfilled, …"),
        _EMAIL,
        _FROM,
        _TO,
    ),
    show,
)
payments = _group(
    "payments",
    "What was paid, and through whom.",
    _list(
        "payments",
        "List payments, newest first.",
        (
            *("payment_id", "order_id", "provider", "external_id", _STATE),
            *(
                Column("price_amount", "Price"),
                Column("price_currency", "Currency"),
                Column("created_at", "Created (UTC)"),
            ),
        ),
        _filter("status", "In this state, as the application writes it: waiting, finished, …"),
        _filter("provider", "Through this provider."),
        _ORDER,
        click.option("--external", metavar="ID", help="What the provider calls it."),
        _FROM,
        _TO,
    ),
)
webhooks = _group(
    "webhooks",
    "Who called us, and how each call ended.",
    _list(
        "webhooks",
        "List webhook events, newest first.",
        (
            *("event_id", Column("occurred_at", "Occurred (UTC)"), "provider", "event_type", "external_id"),
            *(Column("outcome", state=True), "payment_status", "order_id", "error"),
        ),
        _filter("provider", "From this provider.", "nowpayments", "kinguin", "other"),
        click.option("--external", metavar="ID", help="What the provider calls it."),
        _filter("type", "Of this event type, as the application writes it."),
        _filter("outcome", "That ended so.", "ok", "duplicate", "invalid", "error"),
        click.option("--error", metavar="TEXT", help="With this text in its error, in capitals or not."),
        _ORDER,
        _FROM,
        _TO,
    ),
)
reservations = _group(
    "reservations",
    "What is set aside for whom.",
    _list(
        "reservations",
        "List reservations at Kinguin and in our own inventory, newest first.",
        (
            *("order_id", "place", "reservation_id", Column("state", state=True), Column("order_status", state=True)),
            *(Column("reserved_at", "Reserved (UTC)"), "age", Column("cost_eur", "Cost EUR")),
        ),
        _filter("state", "In this state: reserved, sold."),
        _filter("place", "Here.", "kinguin", "inventory"),
        _ORDER,
        _FROM,
        _TO,
    ),
)
users = _group(
    "users",
    "Who has an account.",
    _list(
        "users",
        "List users, newest first.",
        (
            *("user_id", "email", "role", "suspended", "email_confirmed", Column("last_login_at", "Last login (UTC)")),
            Column("created_at", "Created (UTC)"),
        ),
        _filter("role", "With this role.", "user", "admin"),
        _either("suspended", "not-suspended", "Suspended or not."),
        _EMAIL,
        _FROM,
        _TO,
    ),
)
sessions = _group(
    "sessions",
    "Who is logged in.",
    _list(
        "sessions",
        "List sessions, the one that ends last first; --from and --to are about their end.",
        (
            *("session_id", "user_id", "revoked", Column("expires_at", "Expires (UTC)")),
            *(Column("last_active_at", "Last active (UTC)"), Column("created_at", "Created (UTC)")),
        ),
        _USER,
        _either("revoked", "not-revoked", "Revoked or not."),
        _FROM,
        _TO,
    ),
)
app_audit = _group(
    "app-audit",
    "What the application's own admins did.",
    _list(
        "app-audit",
        "List the application's audit log, newest first; never its payloads, which can hold product keys.",
        (Column("created_at", "At (UTC)"), "admin_user_id", "action", "target", "entry_id"),
        click.option("--admin", metavar="ID", help="By this admin."),
        _filter("action", "Exactly this action."),
        _filter("target", "On exactly this target."),
        _FROM,
        _TO,
    ),
)
