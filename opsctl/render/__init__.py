"""From spec to files: generated documents."""
