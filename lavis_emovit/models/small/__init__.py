"""The small real model: EfficientNet-Lite0, a Q-Former begun from MiniLM, SmolLM2-135M-Instruct."""
