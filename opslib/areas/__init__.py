"""What exporters, jobs, actions and reports share: one small module per area."""
