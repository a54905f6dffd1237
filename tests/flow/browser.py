"""A browser without a screen, driven by its DevTools protocol over a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

from flow import PATIENCE, Failure, expect, wait_until

PROGRAMS = ("chromium-headless-shell", "chromium")


def browser_program():
    """None: there is none on this machine."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One tab. `complaints` is what the page did wrong: exceptions, and what its policy forbade."""

    def __init__(self, flow):
        self.flow = flow
        to_browser, self.to = os.pipe()
        self.answers, from_browser = os.pipe()

        def take_pipes():
            """The browser reads commands from 3 and writes to 4, which may be what we have to move."""
            spare = [os.dup(to_browser), os.dup(from_browser)]
            spare = [fd if fd > 4 else os.dup(fd) for fd in spare]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self.log = open(flow.path / "browser.log", "w")
        self.process = subprocess.Popen(
            [browser_program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe",
             f"--user-data-dir={flow.path}/browser", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, close_fds=False, preexec_fn=take_pipes,
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
            self.process.kill()
            self.process.wait()
        os.close(self.answers)
        self.log.close()

    # ---- the protocol ----

    def receive(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.unread:
            if not select.select([self.answers], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failure("the browser does not answer")
            data = os.read(self.answers, 1 << 16)
            if not data:
                raise Failure(f"the browser ended: {(self.flow.path / 'browser.log').read_text()[-2000:]}")
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
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while (answer := self.receive()).get("id") != self.number:
            self.note(answer)
        expect("error" not in answer, f"{method}: {answer.get('error')}")
        return answer["result"]

    # ---- a page ----

    def open(self, url):
        """Loads it anew, whatever is there."""
        self.call("Page.navigate", url="about:blank")
        found = self.call("Page.navigate", url=url)
        expect("errorText" not in found, f"{url}: {found}")
        wait_until(lambda: self.run("document.readyState") == "complete" and self.run("location.href").startswith(url), f"{url} to load")

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
            except (Failure, KeyError):
                return None
        try:
            return wait_until(look, what)
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
