"""Become the engine, having asked the kernel to end it when the daemon dies.

Run as a script: ``python -I -S _launch.py PARENT_PID PROGRAM ARGUMENT…``. It is a program of its own
because the alternative, code between fork and exec in a process with threads, can deadlock. The request
survives ``exec``, so the process id that the daemon knows is the engine's. Its workers are not reached
by it: those die with the engine, or are reaped by their mark.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the daemon died before its engine started")
    # Python ignores this signal and exec hands that on; an engine is to find what a shell would give it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(program, sys.argv[2:])  # noqa: S606 - an argument list, no shell
    except OSError as error:
        sys.exit(f"cannot run {program}: {error.strerror}")


_main()
