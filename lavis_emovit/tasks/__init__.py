"""The emotion-instruction task, registered in LAVIS."""
