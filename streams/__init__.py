"""The stream side of simusage: a pure core (records, ledger, windows, queries), thin adapters around it."""
