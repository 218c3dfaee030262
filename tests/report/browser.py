"""A real Chromium, driven through a pipe by its DevTools protocol: what a page shows, says and asks for."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def found():
    """Return the path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One headless browser with one page open at a time.

    Attributes
    ----------
    requests : list of str
        Every address that the page has asked for since it was opened.
    messages : list of str
        What went to the console, and what was refused or raised.
    """

    def __init__(self, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        arguments = [
            found(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        # The protocol is spoken on descriptors 3 and 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *arguments],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest, self._session, self._answers = 0, b"", None, {}
        self.requests, self.messages, self._events = [], [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")

    def open(self, path, *, width=1280, height=900, dark=False, javascript=True):
        """Show a file, and wait until all of it is loaded."""
        self.requests, self.messages, self._events = [], [], []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setScriptExecutionDisabled", value=not javascript)
        address = path if "://" in str(path) else Path(path).absolute().as_uri()
        self.call("Page.navigate", url=str(address))
        self._until(lambda: "Page.loadEventFired" in self._events)
        self.settle()

    def settle(self, seconds=0.2):
        """Let what the page does by itself happen."""
        with contextlib.suppress(TimeoutError):
            self._until(lambda: False, seconds=seconds)

    def script(self, expression):
        """Return the value of an expression in the page; works with the page's own JavaScript off, too."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def move(self, x, y):
        """Move the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path, *, whole=True):
        """Write a picture of the page."""
        import base64

        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        """End the browser and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **parameters):
        """Call a method of the protocol, and return its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        answer = self._until(lambda: self._answers.pop(number, None))
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _until(self, done, *, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not (value := done()):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError(f"the browser did not answer in {seconds:g} s")
            data = os.read(self._read, 2**20)
            assert data, "the browser has ended"
            *whole, self._rest = (self._rest + data).split(b"\0")
            for message in map(json.loads, whole):
                self._take(message)
        return value

    def _take(self, message):
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, event = message["method"], message["params"]
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(f"console: {[one.get('value') for one in event['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.messages.append(f"exception: {event['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.messages.append(f"log: {event['entry']['text']}")
        elif method == "Audits.issueAdded":
            self.messages.append(
                f"issue: {event['issue']['code']}: {json.dumps(event['issue']['details'])[:300]}"
            )
        elif method == "Page.javascriptDialogOpening":
            self.messages.append(f"dialog: {event['message']}")
            self._number += 1
            data = {"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            os.write(self._write, json.dumps({**data, "sessionId": self._session}).encode() + b"\0")
