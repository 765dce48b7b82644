"""Metrics written by others, asked in a process of their own: piq, pytorch-fid, lpips, and the torchvision they import.

They lie in `.venv/share/oracles` (see requirements/README.md). torchvision's compiled operators need CUDA libraries,
which a CPU build of torch has not; no metric uses them, so their two missing declarations are made before the import.
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.prefix) / "share" / "oracles"
DECLARED = """
import torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in __import__("sys").modules if name.split(".")[0] == "torchvision"]:
        del __import__("sys").modules[name]
    import torchvision
"""


def ask(script: str, *arguments: str) -> str:
    """What `script` prints, run where piq, pytorch_fid, lpips, torchvision are, `arguments` as `sys.argv[1:]`."""
    environment = os.environ | {"PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DECLARED + script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
