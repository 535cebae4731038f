"""Using a tuned model: loading it as it was trained, predictions for images, calibrated confidence, archives."""
