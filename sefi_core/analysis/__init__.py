"""What was learned, looked at: maps of a whole sampling, scores."""
