"""What one run shares and leaves: session, evaluation, state, export."""
