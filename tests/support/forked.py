"""Commands in processes of their own, forked from a server that has imported torch.

`python main.py` imports torch and its like for four seconds before the program begins. A command
that is forked begins at once, and is a process as any other: it has its own id, session, streams,
signals and exit code, and imports the program from its files. The server has run nothing.

    Command((MAIN, "--action", ...), cwd=folder)    from a test
    quick_python() is an executable file             for shells, notebooks and scripts
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

MAIN = Path(__file__).resolve().parents[2] / "main.py"
IMPORTED = (
    *("torch._dynamo", "torch.utils.tensorboard", "torchvision.transforms.v2", "matplotlib.figure"),
    *("torch.utils.flop_counter", "tensorboard.plugins.hparams.api_pb2", "numpy.ma", "av"),
    *(f"PIL.{kind}ImagePlugin" for kind in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
)
"""Modules of others that a training or a report imports."""

ADDRESS = "FORKED"
"""Environment variable with the path of the server's socket."""

_LONGEST = 1 << 17
"""Bytes of a request: the words, the working directory and the environment."""


class Command:
    """A running command; offers a part of what `subprocess.Popen` does.

    Args:
        words: the words after `python`: a script, "-m" and a module, or "-c" and code; and its
            arguments.
        cwd: its working directory.
        env: its environment; None for that of the tests.
        stdout: an open file that it prints into; None for a pipe, read from `self.stdout`.
        stderr: the same for its errors; `subprocess.STDOUT` for one stream of both.
    """

    def __init__(
        self,
        words: tuple[object, ...],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | int | None = subprocess.STDOUT,
    ):
        self.stdout, out = _stream(stdout)
        self.stderr, err = (None, out) if stderr == subprocess.STDOUT else _stream(stderr)
        start_server()
        ends = out.fileno(), err.fileno()
        self._connection = _asked(words, cwd, os.environ if env is None else env, *ends)
        for end, given in ((out, stdout), (err, stderr)):
            if given is None:
                end.close()
        self.pid = int(self._connection.recv(64))
        self.returncode: int | None = None

    def communicate(self, timeout: float = 300) -> tuple[bytes, bytes]:
        """Return what the command prints from now on until its end, in each of its pipes.

        Raises `subprocess.TimeoutExpired`, and kills the command, after so many seconds.
        """
        deadline = time.monotonic() + timeout
        read = {stream: b"" for stream in (self.stdout, self.stderr) if stream}
        still_open: list[Any] = [*read, self._connection]
        while still_open:
            ready, _, _ = select.select(still_open, [], [], max(0, deadline - time.monotonic()))
            if not ready:
                self.kill()
                raise subprocess.TimeoutExpired("command", timeout)
            for one in ready:
                if one is self._connection:
                    self.wait()
                    still_open.remove(one)
                elif some := os.read(one.fileno(), 1 << 16):
                    read[one] += some
                else:
                    still_open.remove(one)
        return read.get(self.stdout, b""), read.get(self.stderr, b"")

    def wait(self, timeout: float = 300) -> int:
        """Return the exit code, below 0 for the signal that has killed the command."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            self.returncode = int(self._connection.recv(64))
        return self.returncode

    def kill(self) -> None:
        """Kill the command and the processes that it has started, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def run(*words: object, timeout: float = 300, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code, what it printed, and its errors."""
    command = Command(words, **{"stderr": None, **more})
    out, err = command.communicate(timeout)
    return subprocess.CompletedProcess(words, command.wait(), out.decode(), err.decode())


def quick_python() -> Path:
    """Return an executable file named `python`, which forks the command that it is given. Limits
    of a shell, closed streams and signals to it do not reach the command."""
    start_server()
    return Path(os.environ[ADDRESS]).with_name("python")


def _stream(given: Any) -> tuple[IO[bytes] | None, IO[bytes]]:
    """The end that the tests read and the end that the command writes."""
    if given is not None:
        return None, given
    read, write = os.pipe()
    return os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)


def _asked(
    words: tuple[object, ...], cwd: Path, env: Mapping[str, str], *ends: int
) -> socket.socket:
    """Ask the server for a command that writes into the two open files.

    Returns the connection, which tells the command's id and, once it has ended, its exit code.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(os.environ[ADDRESS])
    request = {"words": list(map(str, words)), "cwd": str(cwd), "env": dict(env)}
    socket.send_fds(connection, [json.dumps(request).encode()], ends)
    return connection


def start_server() -> None:
    """Start the server, unless there is one; it ends with the process that has started it."""
    if ADDRESS in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="stdc_adaptation_forked_"))
    words = shlex.join([sys.executable, "-S", "-E", __file__])
    (folder / "python").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (folder / "python").chmod(0o755)
    os.environ[ADDRESS] = str(folder / "socket")
    alive, _lifeline = os.pipe()  # the other end is closed when this process ends
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.environ[ADDRESS])
        listener.listen(64)
        subprocess.Popen(
            [sys.executable, __file__, "--serve", str(listener.fileno()), str(alive)],
            pass_fds=[listener.fileno(), alive],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    os.close(alive)


def _serve(listener: socket.socket, alive: int) -> list[str]:
    """Fork a process for each request, and return the words of the command in it."""
    del sys.path[0]  # the folder of this file
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # a test that needs it says so
            importlib.import_module(name)
    folder = Path(listener.getsockname()).parent
    if sys.dont_write_bytecode:  # else every command would compile the whole program
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder / "compiled")
    gc.freeze()  # else a collection would copy every page of the server's memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no keeper is waited for
    while True:
        ready, _, _ = select.select([listener, alive], [], [])
        if alive in ready:
            shutil.rmtree(folder)
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(alive)
            return _begun(connection)
        connection.close()


def _begun(connection: socket.socket) -> list[str]:
    """Fork the command, and return its words in it; this process is its keeper, which tells how
    the command ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, ends, *_ = socket.recv_fds(connection, _LONGEST, 2)
    request = json.loads(message)
    if pid := os.fork():
        for end in ends:
            os.close(end)
        _, how = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(how)).encode())
        os._exit(0)
    os.setsid()
    connection.send(str(os.getpid()).encode())  # from here on its group can be signalled
    connection.close()
    os.chdir(request["cwd"])
    for number, end in enumerate((os.open(os.devnull, os.O_RDONLY), *ends)):
        os.dup2(end, number)
        os.close(end)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    os.environ.clear()
    os.environ.update(request["env"])
    return request["words"]


def _execute(words: list[str]) -> NoReturn:
    """Do as `python` does with these words. Ends the process without taking the interpreter apart,
    which would copy the server's memory only to free it."""
    code: object = None
    try:
        if words[0] in ("-m", "-c"):
            sys.argv = words[1:]
            sys.path.insert(0, str(Path.cwd()))
            if words[0] == "-c":
                exec(words[1], {"__name__": "__main__"})
            else:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _main(words: list[str]) -> NoReturn:
    """Serve, or run the command of a shell and end as it ends."""
    if words[0] == "--serve":
        _execute(_serve(socket.socket(fileno=int(words[1])), int(words[2])))
    connection = _asked(tuple(words), Path.cwd(), os.environ, 1, 2)
    connection.recv(64)
    code = int(connection.recv(64))
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _main(sys.argv[1:])
