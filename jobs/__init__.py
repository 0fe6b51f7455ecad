"""One module per scheduled job. The first arrive with the scheduler."""
