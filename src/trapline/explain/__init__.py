"""Explains why an exception could not be delivered: evidence from the stopped guest, and proof by the model."""
