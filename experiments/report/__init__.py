"""Pictures and pages about one run: what was planned, what happened, how training went."""
