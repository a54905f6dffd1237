#!/usr/bin/python3
"""What others say about DKIM signatures: dkimpy, in this process, and opendkim-testmsg, which asks the
DNS. It is given one by living in a network of its own, with a name server of ours.

Usage: dkim_verify.py FOLDER: FOLDER/records.json has TXT records by name, FOLDER/*.eml are messages.
Prints JSON: for each file what each verifier says, "good" or why not. Exit status 77: something that
is needed is not there, or not permitted; standard error says what."""

import ctypes
import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading

MISSING = 77
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC_PRIVATE = 4096, 0x4000 | 1 << 18
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def give_up(why):
    print(why, file=sys.stderr)
    sys.exit(MISSING)


try:
    import dkim
    import nacl.signing  # noqa: F401 dkimpy needs it for Ed25519, and says so too late
except ImportError as error:
    give_up(f"dkimpy: {error}")


def enter_world(folder):
    """A network with nothing but a loopback, and a resolver that asks it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 or libc.mount(None, b"/", None, MS_REC_PRIVATE, None) != 0:
        give_up(f"a network of its own: {os.strerror(ctypes.get_errno())}")
    with socket.socket() as s:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16sH22x", fcntl.ioctl(s, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:3\n"),
                       ("nsswitch.conf", "hosts: dns\n")):
        path = folder / name
        path.write_text(text)
        if libc.mount(os.fsencode(path), b"/etc/" + name.encode(), None, MS_BIND, None) != 0:
            give_up(f"/etc/{name}: {os.strerror(ctypes.get_errno())}")


def question(packet):
    """The name that is asked for, and where the question ends."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode().lower())
        at += 1 + packet[at]
    return ".".join(labels), at + 5


def answer(packet, records):
    name, end = question(packet)
    text = records.get(name)
    flags = 0x8580 if text else 0x8583
    reply = packet[:2] + struct.pack(">HHHHH", flags, 1, 1 if text else 0, 0, 0) + packet[12:end]
    if text:
        strings = [text[i:i + 255].encode() for i in range(0, len(text), 255)]
        data = b"".join(bytes([len(s)]) + s for s in strings)
        reply += struct.pack(">HHHIH", 0xC00C, 16, 1, 3600, len(data)) + data
    return reply


def serve(server, records):
    while True:
        packet, client = server.recvfrom(4096)
        server.sendto(answer(packet, records), client)


def ask_dkimpy(message, records):
    """Every signature has to be good."""
    def lookup(name, timeout=5):
        text = records.get(name.decode().rstrip("."))
        return text.encode() if text else None

    try:
        count = len([1 for name, _ in dkim.DKIM(message).headers if name.lower() == b"dkim-signature"])
        verdicts = [dkim.DKIM(message).verify(idx=i, dnsfunc=lookup) for i in range(count)]
    except dkim.DKIMException as error:
        return f"{type(error).__name__}: {error}"
    if not verdicts:
        return "no signature"
    return "good" if all(verdicts) else f"bad: {verdicts}"


def ask_opendkim(message):
    """One good signature is enough for it."""
    if b"\r\n\r\n" not in message:
        # It takes the last field of a message without a body for one without an end.
        message += b"\r\n"
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.seek(0)
        try:
            done = subprocess.run(["opendkim-testmsg"], stdin=file, capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            give_up("opendkim-testmsg is not installed")
    said = (done.stdout + done.stderr).strip()
    return "good" if done.returncode == 0 and not said else f"{done.returncode}: {said}"


def main():
    folder = pathlib.Path(sys.argv[1])
    records = json.loads((folder / "records.json").read_text())
    enter_world(folder)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=serve, args=(server, records), daemon=True).start()
    verdicts = {}
    for path in sorted(folder.glob("*.eml")):
        message = path.read_bytes()
        verdicts[path.stem] = {"dkimpy": ask_dkimpy(message, records), "opendkim": ask_opendkim(message)}
    json.dump(verdicts, sys.stdout)


if __name__ == "__main__":
    main()
