"""Sets of problems and chains made before a run: measured, cleaned, deduplicated, balanced.

The commands are `thinking_rl.data.curate` and `thinking_rl.data.warmup`.
"""
