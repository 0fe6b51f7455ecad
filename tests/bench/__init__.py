"""`make bench`: ratios taken in one run, because the machines differ and drift."""
