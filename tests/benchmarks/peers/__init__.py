"""Other engines on the same topic in the same run: `make bench-peers`."""
