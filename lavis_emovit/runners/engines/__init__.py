"""Engines: how one optimizer step is carried out on the machine at hand."""
