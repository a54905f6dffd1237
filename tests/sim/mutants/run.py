#!/usr/bin/env python3
"""Shows that the simulator finds what it is there to find.

Each NAME.patch beside this file puts one bug into flywheel. For each the simulator is built with
that bug, in build/mutants/NAME, and runs seeds until one fails that does not fail without the bug:
the bug is caught. A mutant that outlives all seeds or its time, or a patch that no longer applies,
is a failure.

Usage: run.py [NAME...]     (make mutants [MUTANT=NAME] [SEEDS=n] [JOBS=n] sets the environment)
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "mutants"
SEEDS = int(os.environ.get("SEEDS") or 2000)
JOBS = os.environ.get("JOBS") or "2"
# Seeds of one process, and how long it may take: a bug may keep a run from ending.
BATCH = 100
BATCH_SECONDS = 30
MUTANT_SECONDS = 240


def words(name):
    """The words of a variable that make hands over."""
    value = os.environ.get(name)
    if value is None:
        sys.exit(f"{name} is not set: run this by make mutants")
    return shlex.split(value)


def title(patch):
    """What the patch says of itself, above the first file."""
    lines = []
    for line in patch.read_text().splitlines():
        if line.startswith("--- "):
            break
        lines.append(line)
    return " ".join(lines).strip()


def patched_files(patch):
    return re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(), re.M)


def users_of(header, out):
    """The library's sources that were compiled with `header`, from make's dependency files."""
    users = []
    for depends in (ROOT / out).rglob("*.d"):
        source = depends.relative_to(ROOT / out).with_suffix(".c")
        if source.parts[0] in ("tests", "tools", "perf"):
            continue
        if re.search(rf"(^|\s){re.escape(header)}(\s|$)", depends.read_text()):
            users.append(str(source))
    return users


def run(command, **options):
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    return done.returncode, done.stdout


def build(patch, folder):
    """Compiles what the patch changes, and links it before the library. None, or what went wrong."""
    out = words("OUT")[0]
    sources = set()
    for file in patched_files(patch):
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, target)
        if file.endswith(".c"):
            sources.add(file)
        else:
            sources.update(users_of(file, out))
    with patch.open() as text:
        status, said = run(["patch", "-s", "-p1", "-F0", "-d", str(folder)], stdin=text)
    if status != 0:
        return f"the patch does not apply: {said}"
    objects = []
    for source in sorted(sources):
        at = folder / source if (folder / source).exists() else ROOT / source
        made = folder / (source.replace("/", "_") + ".o")
        status, said = run(words("CC") + [f"-I{folder}"] + words("CFLAGS") + ["-c", str(at), "-o", str(made)])
        if status != 0:
            return f"does not compile: {said}"
        objects.append(str(made))
    status, said = run(words("CC") + words("LDFLAGS") + words("SIM_OBJ") + objects + words("LIB")
                       + words("LIBS") + ["-o", str(folder / "simulate")])
    return None if status == 0 else f"does not link: {said}"


def simulate(program, *options):
    """What it printed, as far as it came in time, and whether time ran out."""
    running = subprocess.Popen([str(program), *options], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return running.communicate(timeout=BATCH_SECONDS)[0].decode(errors="replace"), False
    except subprocess.TimeoutExpired:
        # Its lives, too.
        os.killpg(running.pid, signal.SIGKILL)
        return running.communicate()[0].decode(errors="replace"), True
    except BaseException:
        os.killpg(running.pid, signal.SIGKILL)
        raise


def sound(seed):
    """True when the seed passes without a bug."""
    said, late = simulate(ROOT / words("OUT")[0] / "simulate", "--seed", str(seed))
    return not late and " FAILED " not in said


def failures(said):
    """Each seed that failed, and why."""
    for part in re.split(r"^(?=seed \d+ )", said, flags=re.M):
        failure = re.match(r"seed (\d+) FAILED.*?: (.*)$", part, re.M)
        if failure is None:
            continue
        reason = failure.group(2)
        fatal = re.search(r"fatal: (.*)$|(ERROR: AddressSanitizer: .*?) on", part, re.M)
        if fatal is not None:
            reason += f": {fatal.group(1) or fatal.group(2)}"
        yield int(failure.group(1)), reason


def hunt(folder):
    """Runs seeds until one fails. (seeds run, why it failed), or (seeds, None)."""
    first = 1
    began = time.monotonic()
    while first <= SEEDS and time.monotonic() - began < MUTANT_SECONDS:
        last = min(first + BATCH - 1, SEEDS)
        said, late = simulate(folder / "simulate", "--seeds", f"{first}..{last}", "--jobs", JOBS,
                              "--stop-at-failure")
        for seed, reason in failures(said):
            if sound(seed):
                return seed, reason
        # As many as it has begun are done, unless it was cut short.
        count = re.search(r"^(\d+) seeds:", said, re.M)
        first = first + int(count.group(1)) if count and not late else last + 1
    return first - 1, None


def main():
    # So that what is under way is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wanted = sys.argv[1:]
    patches = [p for p in sorted(HERE.glob("*.patch")) if not wanted or p.stem in wanted]
    escaped = 0
    if not patches:
        sys.exit(f"no mutant is called {' or '.join(wanted)}; there are: "
                 + " ".join(p.stem for p in sorted(HERE.glob('*.patch'))))
    for patch in patches:
        folder = BUILD / patch.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        trouble = build(patch, folder)
        if trouble is not None:
            print(f"BROKEN   {patch.stem}: {trouble}", flush=True)
            escaped += 1
            continue
        seeds, reason = hunt(folder)
        if reason is None:
            print(f"ESCAPED  {patch.stem} ({title(patch)}): {seeds} seeds found nothing", flush=True)
            escaped += 1
        else:
            print(f"caught   {patch.stem} ({title(patch)}): by seed {seeds}: {reason}", flush=True)
    print(f"mutants: {len(patches) - escaped} caught, {escaped} not")
    sys.exit(1 if escaped else 0)


if __name__ == "__main__":
    main()
