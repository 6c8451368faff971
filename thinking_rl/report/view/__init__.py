"""Looking at a run: its files to a page. Nothing here is heavier than the standard library."""
