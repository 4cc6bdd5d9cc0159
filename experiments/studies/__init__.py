"""Studies: each regenerates one published table."""
