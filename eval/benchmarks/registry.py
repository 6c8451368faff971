"""The benchmarks by name."""

from __future__ import annotations

from eval.benchmarks import gsm8k, math500, mathvision, mathvista, mmmu, mmmu_pro
from eval.benchmarks.benchmark import Benchmark
from thinking_rl.names import did_you_mean

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        mmmu.BENCHMARK,
        mmmu_pro.STANDARD,
        mmmu_pro.VISION,
        mathvision.BENCHMARK,
        mathvista.BENCHMARK,
        gsm8k.BENCHMARK,
        math500.BENCHMARK,
    )
}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: there is none; lists the names that there are.
    """
    if name not in BENCHMARKS:
        hint = did_you_mean(name, BENCHMARKS)
        raise ValueError(f"no benchmark {name!r}{hint}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
