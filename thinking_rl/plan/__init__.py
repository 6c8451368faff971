"""What a run would do and need, worked out before it starts."""
