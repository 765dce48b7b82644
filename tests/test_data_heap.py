"""datagen.heap: what a process that makes rows leaves out or gives back, and that everything works as before."""

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from datagen.heap import let_go_of_files

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="resident pages are counted in Linux's /proc")


def _said(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_shard_is_built_without_pandas_and_data_frames_are_still_made() -> None:
    pytest.importorskip("pandas")
    said = _said(
        "import sys\n"
        "from datagen.shards import build_shard, read_table\n"
        "shard = build_shard([{'row_id': f'r-{n}', 'image': {'bytes': b'x', 'path': None}} for n in range(9)])\n"
        "table = read_table(bytes(shard.data), ['row_id', 'keep'])\n"
        "print('pandas' in sys.modules)\n"
        "print(table.to_pandas().shape, 'pandas' in sys.modules)\n"
    )
    assert said == "False\n(9, 2) True\n"


def test_compiled_code_is_loaded_without_scipy_and_matrices_are_still_multiplied() -> None:
    said = _said(
        "import sys\n"
        "import numpy as np\n"
        "from numba import njit\n"
        "from datagen.heap import leave_scipy_out\n"
        "leave_scipy_out()\n"
        "print(njit(lambda a: a + 1)(1), 'scipy.linalg' in sys.modules)\n"
        "matrix = np.array([[1.0, 2.0], [3.0, 4.0]])\n"
        "print(njit(lambda a: a @ a)(matrix).tolist(), 'scipy.linalg' in sys.modules)\n"
        "print(round(njit(lambda a: np.linalg.det(a))(matrix), 6))\n"
    )
    assert said == "2 False\n[[7.0, 10.0], [15.0, 22.0]] True\n-2.0\n"


def _resident_kb(path: Path) -> int:
    mappings = Path("/proc/self/smaps").read_text()
    return sum(int(kb) for kb in re.findall(rf"{re.escape(str(path))}\nSize:(?:.*\n)*?Rss: +(\d+) kB", mappings))


@LINUX
@pytest.mark.parametrize(("access", "named"), [(mmap.ACCESS_READ, False), (mmap.ACCESS_COPY, True)])
def test_pages_of_files_go_and_come_back(tmp_path: Path, access: int, named: bool) -> None:
    path = tmp_path / "font"
    path.write_bytes(b"ink " * (1 << 18))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=access) as pages:
        assert bytes(pages).count(b"ink ") == 1 << 18
        assert _resident_kb(path) == 1024
        let_go_of_files({str(path)} if named else set())
        assert _resident_kb(path) == 0
        assert bytes(pages).count(b"ink ") == 1 << 18


@LINUX
def test_what_was_written_into_a_mapping_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as copied:
        copied[:4] = b"mine"
        let_go_of_files({str(path)})
        assert copied[:4] == b"mine"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE) as shared:
        shared[:4] = b"ours"
        let_go_of_files()
        assert shared[:4] == b"ours"
    assert path.read_bytes()[:4] == b"ours"
