"""How jobs become due, are taken, run and end; `opslib.runner` puts the parts together."""
