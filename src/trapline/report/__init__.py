"""What is known of a run that is over: one document, as values, as text and as JSON."""
