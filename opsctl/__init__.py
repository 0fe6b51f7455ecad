"""The operator's hand: the command line and everything only it needs."""
