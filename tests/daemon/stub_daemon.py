"""The real daemon whose experiments are the worker's stubs; takes the daemon's own arguments."""

from __future__ import annotations

import sys

from subcortex.daemon.__main__ import main
from subcortex.experiments import catalogue
from subcortex.mind.experimenting import supervisor
from tests.experiments.worker.stub import STUBS

if __name__ == "__main__":
    catalogue.CATALOGUE = STUBS
    supervisor.COMMAND = (sys.executable, "-m", "tests.experiments.worker.stub")
    sys.exit(main())
