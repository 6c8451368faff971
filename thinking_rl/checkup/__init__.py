"""Whether a run can work, known before it starts: the machine, the recipe, the real parts."""
