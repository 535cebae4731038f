"""Image-text models of transformers: LLaVA, Qwen-VL, Gemma, SmolVLM and others, on the data of every other family."""
