"""Image and text processors, registered in LAVIS."""
