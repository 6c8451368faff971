"""Policy mirror descent as pure functions: advantages, loss, sampling of problems."""
