"""What happens to a picture behind the model: grain, and where the model's work counts."""
