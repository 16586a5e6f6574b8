"""Why an exception could not be delivered: evidence taken from the stopped guest, and what the model proves from it."""
