"""Complete and verify three levels of facial emotion: expression, valence and arousal, action units."""
