"""``python -m subcortex.cli``: the same as the ``subcortex`` command."""

from __future__ import annotations

from subcortex.cli import main

if __name__ == "__main__":
    main()
