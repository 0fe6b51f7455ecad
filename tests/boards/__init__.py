"""What proves the boards without a Grafana server: their JSON read, asked and drawn as Grafana would."""
