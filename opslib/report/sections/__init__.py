"""One module per part of a page: it asks and judges, and formats nothing."""
