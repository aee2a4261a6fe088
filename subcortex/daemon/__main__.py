"""``python -m subcortex.daemon``: what a client starts when none is up."""

from __future__ import annotations

import argparse
import json
import os
import sys

from subcortex import config as configuration
from subcortex.daemon import log_to_stderr, serve
from subcortex.errors import SubcortexError


def main() -> int:
    """Read the configuration, serve it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="subcortex-daemon", description="Serve one configuration.")
    parser.add_argument("--config", help="path of the config.toml")
    parser.add_argument("--ready-fd", type=int, help="pipe on which to report readiness")
    given = parser.parse_args()
    log_to_stderr()
    try:
        config = configuration.load(given.config)
    except SubcortexError as error:
        if given.ready_fd is not None:
            os.write(given.ready_fd, json.dumps({"error": error.to_wire()}).encode() + b"\n")
        print(error, file=sys.stderr)
        return error.exit_code
    return serve(config, ready_fd=given.ready_fd)


if __name__ == "__main__":
    sys.exit(main())
