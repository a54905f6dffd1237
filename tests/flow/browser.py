"""A browser without a screen, driven by its DevTools protocol over a pair of pipes.

Whatever it is asked is answered within PATIENCE, all of it and however much else it tells meanwhile, or the test fails
and says what was not answered."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time

from flow import PATIENCE, Failure, expect, wait_until

PROGRAMS = ("chromium-headless-shell", "chromium")


def browser_program():
    """None: there is none on this machine."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def pipe():
    """Its ends, neither of which is what the browser has for its own."""
    low = os.pipe()
    ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in low]
    for fd in low:
        os.close(fd)
    return ends


class Lost(Failure):
    """It has ended, or answers no more: who waits for its page to change waits in vain."""


class Browser:
    """One tab. `complaints` is what the page did wrong: exceptions, and what its policy forbade."""

    def __init__(self, flow):
        self.flow = flow
        to_browser, self.to = pipe()
        self.answers, from_browser = pipe()
        os.set_blocking(self.to, False)
        self.log = open(flow.path / "browser.log", "w")
        # It reads commands from 3 and writes to 4. A shell arranges that, as nothing of Python's should run in a child
        # of a process with threads: another one's lock may be held there for ever.
        self.process = subprocess.Popen(
            ["sh", "-c", 'in=$1 out=$2; shift 2; exec "$@" 3<"/dev/fd/$in" 4>"/dev/fd/$out"', "sh", str(to_browser), str(from_browser),
             browser_program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe",
             f"--user-data-dir={flow.path}/browser", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=(to_browser, from_browser),
            start_new_session=True,
            env=dict(os.environ, HOME=str(flow.path)))
        os.close(to_browser)
        os.close(from_browser)
        flow.closers.append(self.close)
        self.unread = b""
        self.number = 0
        self.session = None
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """It ends, with its children, when nobody commands it any more."""
        os.close(self.to)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
        os.close(self.answers)
        self.log.close()

    # ---- the protocol ----

    def lost(self, words):
        return Lost(f"{words}; it said: {(self.flow.path / 'browser.log').read_text(errors='replace')[-2000:]}")

    def wait_for_pipe(self, reads, writes, deadline, method):
        if not any(select.select(reads, writes, [], max(0, deadline - time.monotonic()))):
            raise self.lost(f"waited {PATIENCE} s for the browser to answer {method}")

    def send(self, message, deadline):
        data = json.dumps(message).encode() + b"\0"
        while data:
            self.wait_for_pipe([], [self.to], deadline, message["method"])
            try:
                data = data[os.write(self.to, data):]
            except BrokenPipeError:
                raise self.lost(f"the browser has ended before {message['method']}") from None

    def receive(self, deadline, method):
        """The next message; `method` is what it should be the answer to."""
        while b"\0" not in self.unread:
            self.wait_for_pipe([self.answers], [], deadline, method)
            data = os.read(self.answers, 1 << 16)
            if not data:
                raise self.lost(f"the browser ended, and did not answer {method}")
            self.unread += data
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def note(self, message):
        """What it tells unasked."""
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["source"] in ("security", "violation", "javascript"):
            self.complaints.append(params["entry"]["text"])

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        deadline = time.monotonic() + PATIENCE
        self.send(message, deadline)
        while (answer := self.receive(deadline, method)).get("id") != self.number:
            self.note(answer)
            # What it tells unasked has no end.
            if time.monotonic() > deadline:
                raise self.lost(f"waited {PATIENCE} s for the browser to answer {method}, and it told other things")
        expect("error" not in answer, f"{method}: {answer.get('error')}")
        return answer["result"]

    # ---- a page ----

    def open(self, url):
        """Loads it anew, whatever is there."""
        self.call("Page.navigate", url="about:blank")
        found = self.call("Page.navigate", url=url)
        expect("errorText" not in found, f"{url}: {found}")
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({url!r})", f"{url} to load")

    def run(self, script):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        expect("exceptionDetails" not in found, f"{script}: {found.get('exceptionDetails')}")
        return found["result"].get("value")

    def wait(self, script, what):
        """Until the expression is true; its value. What it looks at may not be there yet."""
        def look():
            try:
                return self.run(script)
            except Lost as e:
                raise Lost(f"{e}; while it was asked for {what}") from None
            except (Failure, KeyError):
                return None
        try:
            return wait_until(look, what)
        except Lost:
            raise
        except Failure as e:
            raise Failure(f"{e}; the page says: {self.run('document.body?.innerText')}; {self.complaints}") from None

    def figure(self, name):
        """The text of what has this name on the page, without the spaces in its numbers; None: there is none."""
        text = self.run(f"document.querySelector('[data-figure=\"{name}\"]')?.textContent")
        return text if text is None else text.replace("\u202f", "")

    def rows(self, table):
        """Its rows, each a list of the texts of its cells."""
        return self.run(f"[...document.querySelectorAll('[data-table=\"{table}\"] tbody tr')].map((tr) =>"
                        " [...tr.children].map((td) => td.firstChild.textContent.replaceAll('\\u202f', '')))")

    def reload(self, script="location.reload()"):
        """By this script; returns when another page is there."""
        self.run("window.before = true")
        self.run(f"void setTimeout(() => {{ {script} }})")
        self.wait("window.before === undefined && document.readyState === 'complete'", "the page to load anew")

    def key(self, name, text=""):
        """Presses and lets go."""
        code = {"Enter": 13, "Tab": 9}.get(name, 0)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                      **({"text": text} if text and kind == "keyDown" else {}))

    def resize(self, width, height, dark=False, still=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}])

    def picture(self, path):
        """Of the whole page, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True,
                         clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1})["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
