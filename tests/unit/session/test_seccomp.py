"""The filter, interpreted: which calls pass on each architecture, without trusting the kernel to tell."""

import errno
import struct

import pytest

from triplane.session import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(machine: str, number: int, argument: int = 0, arch: int | None = None) -> int:
    """A small interpreter of classic BPF over ``struct seccomp_data``."""
    code = seccomp.program(machine)
    assert code is not None
    data = struct.pack("<IIQ6Q", number, arch or ARCH[machine], 0, argument, 0, 0, 0, 0, 0)
    place, accumulator = 0, 0
    for _ in range(1000):
        op, if_true, if_false, value = struct.unpack_from("<HBBI", code, place * 8)
        place += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif op == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[op]
            place += if_true if holds else if_false
    raise AssertionError("the filter does not end")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_ordinary_calls_pass(machine: str) -> None:
    for number in {"x86_64": (0, 1, 2, 9, 57, 59, 60, 231, 257), "aarch64": (56, 57, 63, 64, 93, 94, 221)}[machine]:
        assert verdict(machine, number) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("family", "expected"),
    [
        pytest.param(1, ALLOW, id="Unix sockets, bound to what is mounted"),
        pytest.param(2, ALLOW, id="IPv4, bound to the network namespace"),
        pytest.param(40, 0x50000 | errno.EAFNOSUPPORT, id="vsock, which no namespace holds back"),
        pytest.param(38, 0x50000 | errno.EAFNOSUPPORT, id="the kernel's crypto sockets"),
        pytest.param(17, 0x50000 | errno.EAFNOSUPPORT, id="packet sockets"),
    ],
)
def test_socket_families(machine: str, family: int, expected: int) -> None:
    assert verdict(machine, {"x86_64": 41, "aarch64": 198}[machine], family) == expected


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_new_namespaces_are_refused_and_threads_are_not(machine: str) -> None:
    clone = {"x86_64": 56, "aarch64": 220}[machine]
    assert verdict(machine, clone, 0x3D0F00) == ALLOW  # what pthread_create asks for
    assert verdict(machine, clone, 0x11) == ALLOW  # fork
    assert verdict(machine, clone, 0x10000000 | 0x11) == 0x50000 | errno.EPERM
    assert verdict(machine, 435) == 0x50000 | errno.ENOSYS
    assert verdict(machine, {"x86_64": 272, "aarch64": 97}[machine]) == 0x50000 | errno.EPERM


def test_other_calling_conventions_are_killed() -> None:
    assert verdict("x86_64", 1, arch=0x40000003) == KILL  # 32-bit
    assert verdict("x86_64", 0x40000001) == KILL  # x32
    assert verdict("aarch64", 1, arch=0x40000028) == KILL  # 32-bit Arm


def test_an_unknown_architecture_has_no_filter() -> None:
    assert seccomp.program("riscv64") is None
