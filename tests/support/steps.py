"""How far apart two trainings from the same weights are, in the units that matter.

Adam's first steps move each weight by about the learning rate, with the sign of its gradient:
where a gradient is next to nothing, a rounding decides how far, so that single weights differ by
a share of a step from processor to processor (0.04 of it was seen). The root mean square over a
tensor is hardly touched by those: 0.0003 of a step at most, with any of torch's instruction sets.
A wrong gradient moves it by a good part of a step: what the faults of test_learner.py and
test_sft.py are worth stands there.
"""

NATS = 3e-4
"""For losses, entropies and log-ratios; sums of about a hundred log-probs of some nats each round
by a tenth of it."""
OF_NORM = 1e-4
"""For gradient norms, relative; two orders of summation differ by 3e-6."""


def apart(a, b):
    """The largest over two models' tensors of the root mean square difference, and its name."""
    assert a.keys() == b.keys()
    return max((float(((a[name] - b[name]) ** 2).mean() ** 0.5), name) for name in a)
