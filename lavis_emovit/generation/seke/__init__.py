"""Three levels of facial emotion, completed and verified: expression, valence and arousal, action units."""
