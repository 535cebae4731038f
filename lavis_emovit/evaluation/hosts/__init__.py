"""Benchmarks and models of this package inside other evaluation programs: lmms-eval and VLMEvalKit."""
