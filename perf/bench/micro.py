"""The micro benchmarks of flywheel's parts, by the program that measures them."""

import json

from bench.figures import Figure
from bench.process import BenchError, Program

PATIENCE_S = 900


class Micro:
    """fwmicro repeats, and measures its references in turn, by itself."""

    name = "micro"
    about = "flywheel's parts one by one (build/fwmicro)"
    pairs_max = 1

    def run_pair(self, bench):
        program = bench.build / "fwmicro"
        if not program.exists():
            bench.note_once("no micro benchmarks: fwmicro was not built")
            return []
        options = ["--json", "--dir", bench.work] + (
            ["--runs", 1, "--quick"] if bench.quick else ["--runs", bench.pairs])
        with Program([program, *options], bench.work / "micro.out") as running:
            if running.wait(PATIENCE_S) != 0:
                raise BenchError(f"fwmicro failed: {running.said()}")
            lines = running.said().splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        return list(self.figures({row["name"]: row for row in rows}))

    def figures(self, rows):
        """A value for each of its runs."""
        for name, row in rows.items():
            other = rows.get(row.get("beside"))
            for i, value in enumerate(row["runs"]):
                yield Figure(self.name, name, name, row["unit"], value,
                             {other["name"]: other["runs"][i]} if other else {})


CASES = [Micro()]
