"""A harness program that tries to reach what it must not. The same file is run outside and inside the sandbox.

Its argument is a file with a JSON list of ``[name, kind, target]``; it prints (inside: leaves as its
output) a JSON object: name → ``reached: …`` or the error.
Standard library only: that is all a sandboxed program has.
"""

import ctypes
import json
import os
import socket
import ssl
import sys


def read_file(path):
    with open(path, "rb") as file:
        return file.read(200).decode("utf-8", "replace")


def list_folder(path):
    return sorted(os.listdir(path))[0]


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect("\0" + path[1:] if path.startswith("@") else path)
        return connection.recv(100).decode()


def tcp(target):
    with socket.create_connection(tuple(target), timeout=5) as connection:
        return connection.recv(100).decode()


def tls(target):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(tuple(target), timeout=5) as plain, context.wrap_socket(plain) as connection:
        return connection.recv(100).decode()


def http(target):
    with socket.create_connection(tuple(target), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        return connection.recv(100).decode()


def udp(target):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(5)
        connection.sendto(b"ping", tuple(target))
        return connection.recv(100).decode()


def environ_of_others(word):
    """Any process whose environment can be read and has the word in it."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if word.encode() in file.read():
                        return f"process {name}"
            except OSError:
                continue
    raise LookupError("no process with it can be read")


def signal_process(pid):
    os.kill(pid, 0)
    return "may signal it"


def memory_of(pid):
    with open(f"/proc/{pid}/maps", "rb") as file:
        return file.readline().decode()


def root_of(pid):
    return os.listdir(f"/proc/{pid}/root/")[0]


def keyring(_):
    """The user's keyring (keyctl(2)): KEYCTL_GET_KEYRING_ID of KEY_SPEC_USER_KEYRING, made if absent."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    found = libc.syscall(number, 0, ctypes.c_int(-4), 1)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"keyring {found}"


def new_user_namespace(_):
    """unshare(2) with CLONE_NEWUSER, in a child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.unshare(0x10000000)
        os.write(writer, str(ctypes.get_errno() if failed else 0).encode())
        os._exit(0)
    os.waitpid(child, 0)
    code = int(os.read(reader, 10))
    if code:
        raise OSError(code, os.strerror(code))
    return "root in a namespace of its own"


PROBES = {
    name: probe
    for name, probe in list(globals().items())
    if callable(probe) and getattr(probe, "__module__", "") == "__main__"
}


def main():
    results = {}
    with open(sys.argv[1]) as file:
        probes = json.load(file)
    for name, kind, target in probes:
        try:
            results[name] = f"reached: {PROBES[kind](target)}"
        except (OSError, LookupError) as error:
            results[name] = f"{type(error).__name__}: {error}"
    if "TRIPLANE_OUTPUTS" not in os.environ:
        print(json.dumps(results))
        return
    with open(os.path.join(os.environ["TRIPLANE_OUTPUTS"], "report.md"), "w") as file:
        json.dump(results, file)
    print(json.dumps({"type": "reflection", "wentWell": ["probed"], "wentBadly": []}))


if __name__ == "__main__":
    main()
