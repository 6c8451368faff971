"""A request to stop is honoured even where a library swallows the interrupt."""

from __future__ import annotations

import os
import signal

import pytest

from thinking_rl.cluster.stopping import check_stop, stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_swallowed_request_is_remembered(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_signals():
        check_stop()
        try:
            os.kill(os.getpid(), number)
            pytest.fail("nothing was raised")
        except KeyboardInterrupt:
            pass  # as a library might
        with pytest.raises(KeyboardInterrupt):
            check_stop()
    check_stop()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
