"""A next hop that a test scripts in Python: it keeps every message it took, envelope and bytes, and
answers what it is told to. build/fwsink is for volume and for chance; this one is for looking
closely."""

import email
import email.policy
import re
import socket
import threading
import time

from flow import LAG_MS, PATIENCE, expect, wait_until


class Mail:
    """One accepted message, dots taken out."""

    def __init__(self, sender, recipients, data, connection):
        self.sender = sender
        self.recipients = recipients
        self.data = data
        self.connection = connection
        self.at = time.monotonic()

    def parse(self):
        return email.message_from_bytes(self.data, policy=email.policy.default)

    @property
    def body(self):
        return self.data.partition(b"\r\n\r\n")[2]


class Session(threading.Thread):
    """One connection: reads lines, looks up what to say."""

    def __init__(self, peer, connection, number):
        super().__init__(daemon=True)
        self.peer = peer
        self.socket = connection
        self.number = number
        self.file = connection.makefile("rb")
        self.sender = ""
        self.has_mail = False
        self.recipients = []
        self.chunks = b""
        self.transactions = 0

    def say(self, reply):
        if reply is None:
            raise ConnectionError("the script closes")
        time.sleep(LAG_MS.get("peers", 0) / 1000)
        self.socket.sendall(reply.encode() + b"\r\n")
        if reply.startswith("421"):
            raise ConnectionError("421 closes")

    def answer(self, stage, default):
        """What the script has for this stage: text, None to close, or a function of the session."""
        reply = self.peer.replies.get(stage, default)
        if callable(reply):
            reply = reply(self)
        return default if reply is True else reply

    def ehlo(self):
        offers = ["peer.test", *self.peer.offers]
        return "\r\n".join(f"250{' ' if i == len(offers) - 1 else '-'}{o}" for i, o in enumerate(offers))

    def read_lax(self):
        """Up to the first sequence that a lax server takes for the end."""
        data = b"\r\n"
        while not data.endswith(self.peer.ends):
            byte = self.file.read(1)
            if not byte:
                raise ConnectionError("closed in the data")
            data += byte
        return data[2:]

    def read_data(self):
        if self.peer.ends:
            return self.read_lax()
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                raise ConnectionError("closed in the data")
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)

    def command(self, line):
        """False when the session is over."""
        verb = line.split(" ")[0].upper()
        address = re.search(r"<(.*?)>", line)
        self.peer.commands.append((time.monotonic(), self.number, line))
        if verb in ("EHLO", "HELO"):
            self.say(self.answer(verb.lower(), self.ehlo() if verb == "EHLO" else "250 peer.test"))
        elif verb == "MAIL":
            self.transactions += 1
            self.sender, self.recipients = address[1], []
            reply = self.answer("mail", "250 ok")
            self.has_mail = bool(reply) and reply.startswith("2")
            self.say(reply)
        elif verb == "RCPT":
            self.rcpt = address[1]
            reply = self.answer("rcpt", "250 ok") if self.has_mail else "503 no MAIL"
            if reply and reply.startswith("2"):
                self.recipients.append(address[1])
            self.say(reply)
        elif verb == "DATA":
            self.data()
        elif verb == "STARTTLS":
            self.start_tls()
        elif verb == "BDAT":
            self.bdat(line.upper().split())
        elif verb == "QUIT":
            # Who has said so does not count any more: he may open another one when he has read this.
            self.peer.ended(self)
            self.say("221 bye")
            return False
        else:
            self.say(self.answer(verb.lower(), "250 ok"))
        return True

    def start_tls(self):
        reply = self.answer("starttls", "220 go" if self.peer.tls else "502 what?")
        self.say(reply)
        if reply.startswith("220") and self.peer.tls:
            self.socket = self.peer.tls.wrap_socket(self.socket, server_side=True)
            self.file = self.socket.makefile("rb")
            self.peer.secured.append((self.socket.version(), self.socket.session_reused))

    def data(self):
        if not self.recipients:
            self.say("554 nobody")
            return
        reply = self.answer("data", "354 go")
        self.say(reply)
        if not reply.startswith("354"):
            return
        data = self.read_data()
        reply = self.answer("dot", "250 taken")
        if reply and reply.startswith("2"):
            self.peer.mails.append(Mail(self.sender, self.recipients, data, self.number))
        self.say(reply)

    def bdat(self, words):
        """One chunk; its octets are read whatever it is answered. The stage is that of the final dot."""
        self.chunks += self.file.read(int(words[1]))
        reply = self.answer("dot", "250 taken") if self.recipients else "503 nobody"
        if words[2:] == ["LAST"]:
            if reply and reply.startswith("2"):
                self.peer.mails.append(Mail(self.sender, self.recipients, self.chunks, self.number))
            self.chunks = b""
        self.say(reply)

    def run(self):
        try:
            self.say(self.answer("banner", "220 peer.test"))
            while True:
                line = self.file.readline()
                if self.peer.ends and line == b"\n":
                    # What is left of CR LF when a CR alone ended the data.
                    continue
                if not line or not self.command(line.decode(errors="replace").rstrip("\r\n")):
                    return
        except OSError:
            pass
        finally:
            self.file.close()
            self.socket.close()
            self.peer.ended(self)


class Peer:
    """`replies` maps a stage (banner ehlo helo mail rcpt data dot rset) to a reply, to None (close),
    or to a function of the session that returns one of these, or True for the usual. `ends`: byte
    sequences that end the data of a lax server; its messages keep their dots. `tls`: an ssl.SSLContext,
    with which STARTTLS is offered and obeyed."""

    def __init__(self, flow, port=0, host="127.0.0.1", offers=("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 0"), ends=(), tls=None,
                 **replies):
        self.replies = replies
        self.offers = (*offers, "STARTTLS") if tls else offers
        self.tls = tls
        # Version, and whether a session was resumed, of each handshake.
        self.secured = []
        self.ends = ends
        self.mails = []
        self.commands = []
        self.opened = []
        self.open = set()
        self.peak = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server((host, port), backlog=500)
        self.port = self.listener.getsockname()[1]
        flow.closers.append(self.close)
        self.server = threading.Thread(target=self.serve, daemon=True)
        self.server.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.opened.append(time.monotonic())
                session = Session(self, connection, len(self.opened))
                self.open.add(session)
                self.peak = max(self.peak, len(self.open))
            session.start()

    def ended(self, session):
        with self.lock:
            self.open.discard(session)

    def wait(self, count, patience=PATIENCE):
        """Waits for `count` messages; all of them."""
        wait_until(lambda: len(self.mails) >= count, f"{count} messages at the peer", patience)
        return list(self.mails)

    def said(self, verb):
        """Times and lines of one command."""
        return [(at, line) for at, _, line in list(self.commands) if line.upper().startswith(verb)]

    def close(self):
        """Stops listening and cuts every connection."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        # Not before that has ended: it might accept for another one, whose socket gets the number.
        self.server.join(PATIENCE)
        expect(not self.server.is_alive(), f"waited {PATIENCE} s for the peer's thread to end")
        self.listener.close()
        with self.lock:
            sessions = list(self.open)
        for session in sessions:
            try:
                session.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
