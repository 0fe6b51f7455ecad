"""Everything that is tested, by what it needs: nothing (unit), real servers (service), our own output (repo)."""
