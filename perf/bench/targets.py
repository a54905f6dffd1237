"""What flywheel wants to reach, and whether it does."""


class Target:
    """A bound for a figure's median, or for the median of its ratio to a reference."""

    def __init__(self, case, key, bound, most=False, beside=None, unit=""):
        self.case, self.key, self.bound, self.most = case, key, bound, most
        self.beside, self.unit = beside, unit

    def measured(self, results):
        row = results.find(self.case, self.key)
        if row is None:
            return None
        if self.beside is None:
            return row.median()
        return row.ratio(self.beside) if self.beside in row.beside else None


class Verdict:
    """A target and what was measured."""

    def __init__(self, target, row, measured):
        self.target, self.measured = target, measured
        beside = f", by {target.beside}" if target.beside else ""
        self.text = f"{target.case}: {row.text}{beside}"

    def met(self):
        if self.target.most:
            return self.measured <= self.target.bound
        return self.measured >= self.target.bound

    def miss(self):
        """How far from the bound, as a share of it."""
        return abs(self.measured - self.target.bound) / self.target.bound

    def line(self):
        bound = f"{'<=' if self.target.most else '>='} {self.target.bound:.4g}{self.target.unit}"
        verdict = "met" if self.met() else f"MISSED by {self.miss():.0%} of the target"
        return f"{self.text:<62}{bound:>17}{self.measured:>12.4g}  {verdict}"

    def as_json(self):
        return {"target": self.text, "bound": self.target.bound,
                "kind": "at most" if self.target.most else "at least",
                "measured": self.measured, "met": self.met()}


TARGETS = [
    Target("relay-10k", "synced.rate", 30, beside="Postfix"),
    Target("relay-10k", "synced.cpu", 1 / 40, most=True, beside="Postfix"),
    Target("relay-10k", "synced.cpu", 2.0, most=True, beside="load tools"),
    Target("relay-2k", "synced.rate", 25, beside="Postfix"),
    Target("relay-one", "synced.rate", 20, beside="Postfix"),
    Target("accept-10k", "rate", 0.70, beside="generator to sink"),
    Target("open-loop", "50.e2e.p99", 5, most=True, beside="pwrite, fdatasync"),
    Target("queued", "bytes", 320, most=True, unit=" B"),
    Target("queued", "last.rate", 0.90, beside="first tenth"),
    Target("queued", "restart.accepting", 1, most=True, unit=" s"),
    Target("queued", "restart.all", 5, most=True, unit=" s"),
    *(Target("find", key, 2, most=True, unit=" s") for key in ("sender", "recipient", "header", "id", "state")),
    Target("find", "relay", 0.90, beside="by itself"),
    Target("logging", "journals.rate", 0.90, beside="text"),
    *(Target("policy", f"{key}.rate", 0.50, beside="alone")
      for key in ("loops", "allocates", "fails", "waits", "misbehaving")),
    Target("micro", "ring.hop.p50", 250, most=True, unit=" ns"),
    Target("micro", "ring.hop.p99", 500, most=True, unit=" ns"),
    Target("micro", "ring.one-way.64", 50, unit=" M/s"),
    Target("domains", "1000.cpu", 1.15, most=True, beside="10 domains"),
    Target("domains", "100000.cpu", 1.15, most=True, beside="10 domains"),
    Target("connections", "1000.cpu", 1.15, most=True, beside="20 connections"),
    Target("connections", "10000.cpu", 1.15, most=True, beside="20 connections"),
    Target("counts", "calls", 10, most=True),
]


def judge(results):
    """Verdicts on all targets that were measured."""
    found = [(target, target.measured(results)) for target in TARGETS]
    return [Verdict(target, results.find(target.case, target.key), measured)
            for target, measured in found if measured is not None]
