"""Drives a headless Chromium by the DevTools protocol, over the two pipes that --remote-debugging-pipe takes."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections import deque

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
KEYS = {"+": ("Equal", "+"), "-": ("Minus", "-"), "0": ("Digit0", "0"), "Enter": ("Enter", "\r"), " ": ("Space", " ")}


def program():
    """Return a browser that is installed; None: none is."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Chromium:
    """A browser with one page."""

    def __init__(self, folder):
        """`folder` is for its profile."""
        browser_reads, self._to = os.pipe()
        self._from, browser_writes = os.pipe()

        def wire():
            # Where the browser looks for its ends; the copies in between keep one from closing the other.
            ends = os.dup(browser_reads), os.dup(browser_writes)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [
                *(program(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
                *(
                    "--disable-background-networking",
                    "--no-first-run",
                    "--hide-scrollbars",
                    "--force-color-profile=srgb",
                ),
                *(f"--user-data-dir={folder}", "about:blank"),
            ],
            close_fds=False,
            preexec_fn=wire,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(browser_reads)
        os.close(browser_writes)
        self._buffer, self._number, self._session = b"", 0, None
        self.events = deque()
        """What the browser told, as (method, parameters)."""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Return the answer to a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if "method" in answer:
                self.events.append((answer["method"], answer["params"]))

    def open(self, path, *, width=1280, height=900, dark=False):
        """Open a file, and wait until its script has drawn the timeline."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.theme(dark)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && 'ready' in document.documentElement.dataset")

    def theme(self, dark):
        """Choose what the system asks for."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script):
        """Return the value of an expression, of a promise its result."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def wait(self, script, seconds=60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, script
            time.sleep(0.02)

    def press(self, *names):
        """Press keys one after the other."""
        for name in names:
            code, text = KEYS.get(name, (name, None))
            key = {"key": name, "code": code, "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}.get(name, 0)}
            self.call("Input.dispatchKeyEvent", type="keyDown", **key, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def drag(self, start, end):
        """Drag the mouse from a point to another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path, *, whole=True):
        """Write a picture of the page, or of what is in view."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def told(self):
        """Return what the page asked of the network, and what it wrote to the console or was blamed for."""
        asked = [p["request"]["url"] for method, p in self.events if method == "Network.requestWillBeSent"]
        blamed = [
            json.dumps(parameters)
            for method, parameters in self.events
            if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        ]
        return asked, blamed

    def close(self):
        """End the browser."""
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _read(self):
        while b"\0" not in self._buffer:
            piece = os.read(self._from, 1 << 20)
            if not piece:
                raise RuntimeError("the browser ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)
