"""Processes of `python -m snakemake` and `python -m ltpa` that start in a moment, for tests of what such processes do.

A server has imported the libraries of others, and nothing of ltpa, and forks for each command. `Warm.python` stands for
the interpreter: a script that hands its arguments, folder, environment and streams to the server, passes signals on and
ends with the command's exit code. Jobs that a warm Snakemake starts are warm, too. Whatever is no `-m snakemake` or
`-m ltpa` runs in the real interpreter. Tests that kill processes, measure them or change what is read when an
interpreter starts (locale, time zone) take the real one as well.
"""

import array
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    "snakemake.cli",
    "torch",
    "numpy",
    "scipy.sparse",
    "safetensors.torch",
    "pydantic",
    "yaml",
    "matplotlib.figure",
)
_CLIENT = """#!{python} -IS
import array, json, os, signal, socket, sys
real, place = {python!r}, {place!r}
if sys.argv[1:2] != ["-m"] or sys.argv[2] not in ("snakemake", "ltpa"):
    os.execv(real, [real, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect(place)
request = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)], ensure_ascii=True).encode()
streams = array.array("i", [0, 1, 2]).tobytes()
server.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
server.sendall(request)
answers = server.makefile("r")
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Warm:
    """A server, and `python`, which asks it. A context manager; the server ends with it, or with its process."""

    def __enter__(self) -> "Warm":
        self._folder = tempfile.TemporaryDirectory(prefix="warm")
        self.python = str(Path(self._folder.name, "python"))
        place = str(Path(self._folder.name, "socket"))
        Path(self.python).write_text(_CLIENT.format(python=sys.executable, place=place))
        Path(self.python).chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        command = [sys.executable, __file__, place, self.python]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._server.stdout is not None and self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.communicate(timeout=60)
        self._folder.cleanup()


def serve(place: str, python: str) -> None:
    """Fork for every request until standard input ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.executable = python  # with which Snakemake starts its jobs
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            wait_for_one(asking)
        asking.close()


def wait_for_one(asking: socket.socket) -> NoReturn:
    """Fork the process that is asked for, say its number, and then how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, ancillary, _, _ = asking.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i", ancillary[0][2])
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += asking.recv(1 << 20)
    arguments, folder, environment = json.loads(request)
    pid = os.fork()
    if pid == 0:
        asking.close()
        run(arguments, folder, environment, list(streams))
    with contextlib.suppress(BrokenPipeError):
        asking.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        asking.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def run(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Become `python -m ARGUMENTS` in `folder`."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-m", *arguments[1:]]
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    serve(*sys.argv[1:])
