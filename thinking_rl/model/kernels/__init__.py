"""Parts of the model that need more than torch's own modules: less memory, the same numbers."""
