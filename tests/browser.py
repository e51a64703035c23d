"""A real browser for pages: headless Chromium, spoken to over its DevTools pipe."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # which needs rights that containers lack
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
# Chromium reads commands from descriptor 3 and answers on 4.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
_PATIENCE = 120  # seconds until a browser that hangs is ended


def find_chromium():
    """Path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def open_page(path, *, width=1100, height=750):
    """A page of a local file, once it has loaded."""
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        command = (find_chromium(), *_OPTIONS, f"--user-data-dir={profile}", "about:blank")
        command_out, command_in = os.pipe()
        answer_out, answer_in = os.pipe()
        browser = subprocess.Popen(
            [sys.executable, "-c", _START, str(command_out), str(answer_in), *command],
            pass_fds=(command_out, answer_in),
            stderr=subprocess.DEVNULL,
        )
        os.close(command_out)
        os.close(answer_in)
        stack.callback(browser.wait)
        stack.callback(browser.kill)
        watchdog = threading.Timer(_PATIENCE, browser.kill)
        watchdog.start()
        stack.callback(watchdog.cancel)
        commands = stack.enter_context(open(command_in, "wb", buffering=0))
        answers = stack.enter_context(open(answer_out, "rb"))
        page = Page(commands, answers)
        page.open(path, width, height)
        yield page


class Page:
    """One tab.

    Attributes:
        requests: addresses that the page has asked for, those of its own data left out.
        errors: what went wrong: exceptions of scripts, and errors in the console.
    """

    def __init__(self, commands, answers):
        self._commands, self._answers = commands, answers
        self._numbers = itertools.count(1)
        self._session = None
        self._seen = set()
        self.requests, self.errors = [], []

    def open(self, path, width, height):
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self.resize(width, height)
        self._call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._receive()
        self.settle()

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def settle(self):
        """Wait until what is asked for has been drawn."""
        frame = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.run(f"{frame}.then(() => 0)")

    def run(self, script):
        """The value of an expression, or of its promise."""
        options = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self._call("Runtime.evaluate", **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def mouse(self, kind, x, y, **details):
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **details)

    def click(self, x, y):
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)
        self.settle()

    def drag(self, start, end):
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, button="left", clickCount=1)
        self.mouse("mouseMoved", *end, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)
        self.settle()

    def press(self, key):
        text = {"text": key} if len(key) == 1 else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def _call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        """The next message, with what it tells of the page noted."""
        received = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            received += byte
        message = json.loads(received)
        method, details = message.get("method", ""), message.get("params", {})
        self._seen.add(method)
        if method == "Network.requestWillBeSent":
            address = details["request"]["url"]
            self.requests += [] if address.startswith("data:") else [address]
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(details["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.errors.append(str(details["args"]))
        if method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.errors.append(details["entry"]["text"])
        return message
