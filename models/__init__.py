"""What a base is, which of its weights train, the objective, and the file of tuned weights."""
