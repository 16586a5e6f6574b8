"""The result of a run: one document, as values, as text and as JSON."""
