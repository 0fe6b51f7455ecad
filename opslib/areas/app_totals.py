"""What only the application's own /metrics knows, on its way from the `app` exporter to the `ledger` exporter.

The two may run in one process or in two, so the totals pass through the ops database: `app` tallies these families
under its checkpoint, `ledger` reads them there and publishes them in the families it owns.
"""

from opslib.spec import Counter

WEBHOOK = Counter("app_webhook_total", "Webhook calls that leave no row.", ("provider", "outcome"))
EMAIL_FAIL = Counter("app_email_fail_total", "E-mails the application failed to send.")


def checkpoint_name(exporter_name: str) -> str:
    """The checkpoint of the `app` exporter."""
    return f"app/{exporter_name}"
