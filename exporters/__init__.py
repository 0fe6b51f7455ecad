"""One module per subject watched: a collector, its metrics, and the SUBJECT that owns them."""
