"""A process that serves for long gives back what it needed for a moment."""

import platform
import subprocess
import sys

import pytest

READS = """
import ctypes, sys
from pathlib import Path
from triplane import processmemory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "settled":
    processmemory.settle()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
for _ in range(3):  # as answers of the API server: read, then parsed, and a little of it stays
    body = libc.malloc(16 << 20)
    ctypes.memset(body, 1, 16 << 20)
    libc.malloc(4096)
    libc.free(body)
print(resident() - before)
"""


@pytest.mark.parametrize(("how", "kept"), [("settled", False), ("as it begins", platform.libc_ver()[0] == "glibc")])
def test_large_buffers_go_back_to_the_system(how: str, kept: bool) -> None:
    done = subprocess.run([sys.executable, "-c", READS, how], capture_output=True, text=True, check=True, timeout=60)
    assert (int(done.stdout) > 8 << 20) is kept
