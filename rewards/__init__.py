"""Graders, the registry that names them, and the killable pool that runs them.

Importing this package is cheap: graders, and what they need, are loaded where they run.
"""

from rewards.registry import batched, check, resolve

__all__ = ["batched", "check", "resolve"]
