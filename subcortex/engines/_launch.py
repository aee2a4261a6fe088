"""Start an engine and be its keeper from then on.

Run as a script, with nothing installed needed: ``python -I -S _launch.py MARK OWNER_PID ADOPT_S CHANNEL_FD
OUTPUT_FD FOLDER LOG_FILE PROGRAM ARGUMENT…`` in the engine's environment. It is a program of its own because
the alternative, code between fork and exec in a process with threads, can deadlock.

The kernel is asked to end the engine when its keeper dies. The request survives ``exec``; the engine's
workers are not reached by it: those are found by their mark.
"""

import os
import sys

_PR_SET_PDEATHSIG, _SIGTERM = 1, 15


def _become(command: list[str], keeper: int) -> None:
    """Be the engine from here on, in a session of its own."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGTERM)
    if os.getppid() != keeper:
        os._exit(1)
    os.setsid()
    # Python ignores this signal and exec hands that on; an engine is to find what a shell would give it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        os.write(2, os.fsencode(f"cannot run {command[0]}: {error.strerror}\n"))
    os._exit(1)


def _keep(engine: int, owner_fd: int, channel: int, output: int) -> None:
    import types

    # The keeper's modules need the standard library alone; the code of their packages would need more.
    engines = __file__.rpartition("/")[0]
    for name, path in (("subcortex", engines.rpartition("/")[0]), ("subcortex.engines", engines)):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package
    from subcortex.engines import _keeper

    mark, adopt_s, folder, log_file = sys.argv[1], float(sys.argv[3]), sys.argv[6], sys.argv[7]
    _keeper.Keeper(engine, mark, folder, log_file, output).keep(owner_fd, channel, adopt_s)


def _main() -> None:
    owner, channel, output = int(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5])
    owner_fd = os.pidfd_open(owner)
    if os.getppid() != owner:
        sys.exit("the daemon died before its engine started")
    os.set_inheritable(channel, False)
    os.set_inheritable(output, False)
    keeper, engine = os.getpid(), os.fork()
    if engine == 0:
        _become(sys.argv[8:], keeper)
    # What the keeper loads from here on, the engine does not wait for. Only the engine holds its output open.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    _keep(engine, owner_fd, channel, output)


_main()
