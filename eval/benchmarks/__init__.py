"""The benchmarks, one a file: data, prompts, official rules."""
