"""The EmoVIT models, on transformers' InstructBLIP modules, under LAVIS's model API."""
