"""The micro benchmarks of flywheel's parts, by the program that measures them."""

import json
import subprocess

from bench.figures import Figure
from bench.process import BenchError

PATIENCE_S = 900


class Micro:
    """fwmicro repeats and interleaves by itself."""

    name = "micro"
    about = "flywheel's parts one by one (build/fwmicro)"
    pairs_max = 1

    def run_pair(self, bench):
        program = bench.build / "fwmicro"
        if not program.exists():
            bench.note_once(f"no micro benchmarks: there is no {program}")
            return []
        command = [program, "--json"] + (["--runs", "1", "--quick"] if bench.quick else [])
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False)
        if done.returncode != 0:
            raise BenchError(f"fwmicro: {done.stdout}{done.stderr}")
        return [self.figure(json.loads(line)) for line in done.stdout.splitlines() if line]

    def figure(self, row):
        return Figure(self.name, row["name"], row["name"], row["unit"], row["median"])


CASES = [Micro()]
