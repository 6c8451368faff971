"""Functions run in processes of their own, as the ranks of a learner run."""

import contextlib
import multiprocessing
import time
import traceback

_context = multiprocessing.get_context("forkserver")
# Imported once by the server, so that its children start at once and yet afresh.
_context.set_forkserver_preload(["thinking_rl.sft_rank", "torch._dynamo"])


def run(function, world_size, *arguments, timeout_s=300):
    """`function(rank, world_size, *arguments)` in one process for each rank; their results in
    order. A rank that fails, or does not end in time, fails the test."""
    pipes = [_context.Pipe(duplex=False) for _ in range(world_size)]
    processes = [
        _context.Process(
            target=_answer, args=(sender, function, rank, world_size, *arguments), daemon=True
        )
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout_s
    results = []
    try:
        for rank, (receiver, sender) in enumerate(pipes):
            sender.close()
            assert receiver.poll(max(0, deadline - time.monotonic())), f"rank {rank}: no answer"
            ok, value = receiver.recv()
            assert ok, f"rank {rank} failed:\n{value}"
            results.append(value)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return results


def _answer(sender, function, rank, world_size, *arguments):
    with contextlib.suppress(BrokenPipeError):
        try:
            sender.send((True, function(rank, world_size, *arguments)))
        except BaseException:
            sender.send((False, traceback.format_exc()))
