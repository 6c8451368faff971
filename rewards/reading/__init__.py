"""From text to values: the answer in a response, and what it is equal to."""
