"""The InstructBLIP family: image encoder, Q-Former and any language model of transformers."""
