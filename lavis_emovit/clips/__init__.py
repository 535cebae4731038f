"""Clips: videos and frames in the order of time, the frames to look at, and decoding only what is needed for them."""
