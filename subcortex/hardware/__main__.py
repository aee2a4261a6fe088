"""``python -m subcortex.hardware``: print this machine as a snapshot.

Needs pydantic, psutil and nvidia-ml-py alone, so that it runs on a bare host.
"""

from __future__ import annotations

from subcortex.hardware.detect import detect

if __name__ == "__main__":
    print(detect().model_dump_json(indent=2))
