"""A headless Chromium, driven through pipes by the DevTools protocol, which needs no package."""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
KEY_CODES = {"ArrowLeft": 37, "ArrowRight": 39}
COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Browser:
    """One page of a headless Chromium.

    Attributes:
        complaints: what the page has written to its console, and its exceptions.
        requests: addresses that the page has asked for.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="chromium_")
        read_commands, write_commands = os.pipe()
        read_answers, write_answers = os.pipe()

        def take_pipes() -> None:  # Chromium reads from 3 and writes to 4
            spare = [os.dup(one) for one in (read_commands, write_answers)]
            for number, one in zip((3, 4), spare, strict=True):
                os.dup2(one, number)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"],
            preexec_fn=take_pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (read_commands, write_answers):
            os.close(one)
        self._to, self._from = os.fdopen(write_commands, "wb", 0), os.fdopen(read_answers, "rb")
        self._numbers, self._events = itertools.count(1), []
        self.complaints: list[Any] = []
        self.requests: list[str] = []
        self._session = ""
        (target,) = [
            one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page"
        ]
        attached = {"targetId": target["targetId"], "flatten": True}
        self._session = self.send("Target.attachToTarget", **attached)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Open a file at a size, and wait until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        self._wait("Page.loadEventFired")

    def run(self, script: str) -> Any:
        """Return the value of a script in the page; a promise is awaited."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.send("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 10) -> None:
        """Return once a condition of the page holds; it fails after so many seconds."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and release a key."""
        more = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": KEY_CODES[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **more)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Move, press or release the mouse at a place in the window."""
        button = {"button": "left", "buttons": 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._to.close()
        self._from.close()
        self._folder.cleanup()

    def _read(self) -> dict[str, Any]:
        parts = bytearray()
        while (letter := self._from.read(1)) != b"\0":
            assert letter, "Chromium has ended"
            parts += letter
        return json.loads(parts)

    def _wait(self, event: str) -> None:
        while event not in self._events:
            self._note(self._read())
        self._events.clear()

    def _note(self, message: Mapping[str, Any]) -> None:
        method = message.get("method", "")
        self._events.append(method)
        if method in COMPLAINTS:
            self.complaints.append(message["params"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
