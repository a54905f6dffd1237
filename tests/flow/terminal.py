"""A terminal for programs that want one: a pseudo terminal of some size, what was written to it, and the screen that
`flywheel top` has drawn on it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from flow import PATIENCE, Failure, die_with_us

ESCAPE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b[()=>]\S?")


class Terminal:
    def __init__(self, flow, *arguments, rows=24, columns=80, **environment):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        environment = {**os.environ, "TERM": "xterm", "HOME": str(flow.path), **environment}

        def prepare():
            die_with_us()
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen([*map(str, arguments)], stdin=slave, stdout=slave, stderr=slave, cwd=flow.path,
                                        preexec_fn=prepare, env=environment, close_fds=True)
        os.close(slave)
        self.written = ""
        flow.closers.append(self.close)

    def resize(self, rows, columns):
        """The kernel tells the program, once, when the size is another one."""
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def read(self, seconds=0.05):
        """What has come within that time; False at the end."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.written += data.decode(errors="replace")
        return bool(data)

    def wait(self, found, what):
        """Reads until it is true; its value."""
        end = time.monotonic() + PATIENCE
        while True:
            value = found()
            if value:
                return value
            if not self.read() and not found():
                raise Failure(f"the terminal ended before {what}: {self.written[-3000:]!r}")
            if time.monotonic() > end:
                raise Failure(f"no {what} on the terminal: {self.written[-3000:]!r}")

    def wait_text(self, text, after=0):
        """Waits for words, without what moves the cursor; how much was written by then."""
        self.wait(lambda: text in plain(self.written[after:]), repr(text))
        return len(self.written)

    def at_prompt(self, prompt="flywheel> "):
        """It is there, and so is who reads keys: what is typed between the two is the terminal's affair."""
        return plain(self.written).endswith(prompt) and self.gives_keys()

    def run(self, line, prompt="flywheel> "):
        """Types a line, and waits for the next prompt; what came in between."""
        before = len(self.written)
        self.type(line + "\n")
        self.wait(lambda: "\n" in self.written[before:] and self.at_prompt(prompt), f"prompt after {line!r}")
        return plain(self.written[before:]).rsplit("\n", 1)[0]

    def screen(self):
        """The lines that are to be seen, as a terminal shows them; None when something else came than `top` draws."""
        lines = [[" "] * self.columns for _ in range(self.rows)]
        row = column = 0
        text = self.written
        start = text.rfind("\x1b[?1049h")
        at = start if start >= 0 else 0
        while at < len(text):
            match = ESCAPE.match(text, at)
            if match:
                private, number, command = match[1], match[2], match[3]
                if command == "H":
                    row = column = 0
                elif command == "K":
                    lines[row][column:] = [" "] * (self.columns - column)
                elif command == "J" and number == "2":
                    lines = [[" "] * self.columns for _ in range(self.rows)]
                elif command == "J":
                    lines[row][column:] = [" "] * (self.columns - column)
                    lines[row + 1:] = [[" "] * self.columns for _ in range(self.rows - row - 1)]
                at = match.end()
                continue
            if text[at] == "\r":
                column = 0
            elif text[at] == "\n":
                row += 1
                if row >= self.rows:
                    raise Failure("the screen has scrolled")
            else:
                if column >= self.columns:
                    raise Failure(f"a line is longer than {self.columns}: {''.join(lines[row])!r}")
                lines[row][column] = text[at]
                column += 1
            at += 1
        return ["".join(line).rstrip() for line in lines]

    def ended(self):
        """Reads to the end; the exit status."""
        end = time.monotonic() + PATIENCE
        while self.read(1):
            if time.monotonic() > end:
                raise Failure(f"the program does not end: {self.written[-3000:]!r}")
        return self.process.wait(PATIENCE)

    def gives_keys(self):
        """Keys one by one, not lines."""
        return not termios.tcgetattr(self.master)[3] & termios.ICANON

    def is_as_before(self):
        """Lines are taken whole and shown, and ^C is a signal, as where no program has changed it."""
        flags, keys = termios.tcgetattr(self.master)[3], termios.tcgetattr(self.master)[6]
        wanted = termios.ECHO | termios.ICANON | termios.ISIG
        return flags & wanted == wanted and keys[termios.VINTR] == b"\x03"

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def plain(text):
    return ESCAPE.sub("", text).replace("\r", "")
