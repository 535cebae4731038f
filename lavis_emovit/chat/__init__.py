"""The chat client: requests with fingerprints, an append-only ledger, rate limits and a budget."""
