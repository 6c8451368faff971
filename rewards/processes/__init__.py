"""The killable pool of grading processes."""
