"""The chat side: requests with a fingerprint, an append-only ledger, limits, a budget, any OpenAI endpoint."""
