"""The boards, curated: one module each. Their numbers are the subjects' signals and the named queries."""
