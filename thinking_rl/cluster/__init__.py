"""Ray: which actor runs where, waiting for actors, stopping."""
