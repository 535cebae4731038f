"""Statements about the emotion of images, true and false ones, from words that several models propose."""
