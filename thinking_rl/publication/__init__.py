"""New weights to the engines, and the proof that they have them."""
