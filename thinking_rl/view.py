"""Looks at runs: `python -m thinking_rl.view RUN [RUN ...]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from thinking_rl.report.view.answers import answer
from thinking_rl.report.view.bundle import write_bundle
from thinking_rl.report.view.run import RunView
from thinking_rl.report.view.server import Server

PORT = 8428


def main(argv: Sequence[str] | None = None) -> int:
    """Serves a page on some runs until Ctrl-C; returns the exit code: 2 where the user is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        runs = [RunView(path) for path in arguments.runs]
        if arguments.marks:
            for number in range(len(runs)):
                for row in answer(runs, "marks", {"run": str(number)}):
                    print(json.dumps(row, ensure_ascii=False))
        elif arguments.bundle:
            page = write_bundle(runs, arguments.bundle)
            print(f"open {page} in a browser")
        else:
            serve(runs, arguments.host, arguments.port, arguments.token)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def serve(runs: Sequence[RunView], host: str, port: int | None, token: str) -> None:
    """Serve until Ctrl-C. Without a port that the user chose, a free one where ours is taken."""
    try:
        server = Server(runs, host, PORT if port is None else port, token)
    except OSError:
        if port is not None:
            raise
        server = Server(runs, host, 0, token)
    with server:
        print(f"{', '.join(run.name for run in runs)}: {server.url}  (Ctrl-C ends)", flush=True)
        server.serve_forever(poll_interval=0.2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m thinking_rl.view",
        description="A page on runs: what they did, iteration by iteration and response by "
        "response. It reads their folders alone, while they go on and after.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--bundle", metavar="FOLDER", help="write the page as static files instead")
    parser.add_argument(
        "--marks",
        action="store_true",
        help="print the responses marked 'grader is wrong', as rows for python -m rewards.grade",
    )
    parser.add_argument("--port", type=int, help=f"by default {PORT}, or a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; another than this needs --token"
    )
    parser.add_argument("--token", default="", help="a secret that visitors must know")
    return parser


if __name__ == "__main__":
    sys.exit(main())
