"""Accounts and their ledger. Knows nothing of jobs: a `reference` is an opaque string here."""
