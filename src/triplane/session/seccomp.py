"""A seccomp filter for what namespaces do not cover.

A network namespace does not hold back ``AF_VSOCK`` (the way from a virtual machine to its host), a user without
privileges may make a new user namespace and be root in it, and kernel keyrings belong to a user, not to a
namespace. The filter closes these and the system calls no harness needs that have a history of kernel bugs.

Standards followed: seccomp(2), classic BPF (linux/filter.h). Syscall numbers: the kernel's tables of x86-64 and
of the generic table (arm64).
"""

import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENT_0 = 0, 4, 16  # offsets in struct seccomp_data, little-endian low words
_CLONE_NEW = 0x7E020080  # every CLONE_NEW* flag, the time namespace's among them
_X32 = 0x40000000
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all bound to the network namespace

_AUDIT_ARCH: Mapping[str, int] = MappingProxyType({"x86_64": 0xC000003E, "aarch64": 0xC00000B7})
_SOCKET: Mapping[str, int] = MappingProxyType({"x86_64": 41, "aarch64": 198})
_CLONE: Mapping[str, int] = MappingProxyType({"x86_64": 56, "aarch64": 220})
_CLONE3 = 435  # its flags lie in memory a filter cannot read: ENOSYS makes libc fall back to clone
_REFUSED: Mapping[str, Sequence[int]] = MappingProxyType(
    {
        # unshare, setns, mount, umount2, pivot_root, chroot, add_key, request_key, keyctl, bpf, perf_event_open,
        # userfaultfd, kexec_load, kexec_file_load, init_module, finit_module, delete_module, ptrace,
        # process_vm_readv, process_vm_writev, open_by_handle_at, syslog, acct, swapon, swapoff, reboot, personality
        "x86_64": (
            *(272, 308, 165, 166, 155, 161, 248, 249, 250, 321, 298, 323, 246, 320, 175, 313, 176, 101, 310),
            *(311, 304, 103, 163, 167, 168, 169, 135),
        ),
        "aarch64": (
            *(97, 268, 40, 39, 41, 51, 217, 218, 219, 280, 241, 282, 104, 294, 105, 273, 106, 117, 270),
            *(271, 265, 116, 89, 224, 225, 142, 92),
        ),
    }
)
# io_uring_setup, io_uring_enter, io_uring_register; open_tree, move_mount, fsopen, fsconfig, fsmount, fspick;
# mount_setattr: the same numbers everywhere.
_REFUSED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442)


def program(machine: str | None = None) -> bytes | None:
    """The filter for this machine as ``struct sock_filter[]``, or None for an architecture it does not know.

    Refused calls fail with EPERM (``socket`` with EAFNOSUPPORT, ``clone3`` with ENOSYS); another architecture's
    calling convention kills the process.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCH:
        return None
    code = [
        _op(_LOAD, _ARCH),
        _op(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
        _op(_JUMP_AT_LEAST, _X32, 0, 1),  # x32 calls use the same architecture with this bit
        _op(_RETURN, _KILL),
    ]
    for number in (*_REFUSED[machine], *_REFUSED_EVERYWHERE):
        code += [_op(_JUMP_EQUAL, number, 0, 1), _op(_RETURN, _ERRNO | errno.EPERM)]
    code += [_op(_JUMP_EQUAL, _CLONE3, 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    code += [
        _op(_JUMP_EQUAL, _CLONE[machine], 0, 4),
        _op(_LOAD, _ARGUMENT_0),
        _op(_JUMP_SET, _CLONE_NEW, 0, 1),
        _op(_RETURN, _ERRNO | errno.EPERM),
        _op(_RETURN, _ALLOW),
    ]
    code += [_op(_JUMP_EQUAL, _SOCKET[machine], 1, 0), _op(_RETURN, _ALLOW), _op(_LOAD, _ARGUMENT_0)]
    for family in _FAMILIES:
        code += [_op(_JUMP_EQUAL, family, 0, 1), _op(_RETURN, _ALLOW)]
    code.append(_op(_RETURN, _ERRNO | errno.EAFNOSUPPORT))
    return b"".join(code)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
