"""``python bench/queue.py --json`` is ``python bench/queueing.py --json``, where the benchmark is.

The standard library has a ``queue`` too, and a script's folder is the first place that it imports from. So
this file, when one of its neighbours imports ``queue``, steps aside for the real one.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))
    from queueing import main

    main()
else:
    import importlib.util
    import sysconfig

    _spec = importlib.util.spec_from_file_location(__name__, f"{sysconfig.get_path('stdlib')}/queue.py")
    assert _spec is not None
    assert _spec.loader is not None
    _real = importlib.util.module_from_spec(_spec)
    sys.modules[__name__] = _real
    _spec.loader.exec_module(_real)
