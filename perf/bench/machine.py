"""What was measured, and where: the facts above the table."""

import os
import platform
import subprocess
import time


def command(*words):
    """What a program printed; nothing when it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def commit():
    """The commit that was measured, with a plus sign when files were changed since."""
    name = command("git", "rev-parse", "--short", "HEAD")
    if not name:
        return "none"
    return name + ("+" if command("git", "status", "--porcelain", "--untracked-files=no") else "")


def file_system(path):
    """The type and the device of the file system that `path` is on."""
    return command("findmnt", "-n", "-o", "FSTYPE,SOURCE", "--target", str(path)) or "unknown"


def load_average():
    return os.getloadavg()[0]


def facts(path, options):
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "machine": f"{os.cpu_count()} x {processor()}, {memory_gib:.1f} GiB",
        "disk": file_system(path),
        "kernel": platform.release(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "busy": f"load average {load_average():.2f} at the start",
        "options": options,
    }
