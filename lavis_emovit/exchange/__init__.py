"""Data for other trainers: conversations in the formats of LLaVA, ms-swift, LLaMA-Factory, TRL, EasyR1 and verl."""
