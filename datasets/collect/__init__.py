"""Making logs: policies that act, and the runner that records them."""
