"""What is measured: a figure has one value for each pair, beside those of its references."""

import statistics


class Figure:
    """One line of the table. A value, and what was measured beside it in the same pair."""

    def __init__(self, case, key, text, unit, value, beside=None):
        self.case, self.key, self.text, self.unit = case, key, text, unit
        self.value = value
        # Values of the references, by name.
        self.beside = beside or {}


class Row:
    """The values of one figure over the pairs."""

    def __init__(self, figure):
        self.case, self.key, self.text, self.unit = figure.case, figure.key, figure.text, figure.unit
        self.values = []
        self.beside = {name: [] for name in figure.beside}

    def add(self, figure):
        self.values.append(figure.value)
        for name, value in figure.beside.items():
            self.beside[name].append(value)

    def median(self):
        return statistics.median(self.values)

    def median_beside(self, name):
        return statistics.median(self.beside[name])

    def ratios(self, name):
        """Value by reference, pair by pair."""
        return [value / other for value, other in zip(self.values, self.beside[name]) if other]

    def ratio(self, name):
        """The median of the pairs' ratios; None when there is none."""
        ratios = self.ratios(name)
        return statistics.median(ratios) if ratios else None

    def as_json(self):
        return {
            "case": self.case, "figure": self.key, "what": self.text, "unit": self.unit,
            "median": self.median(), "values": self.values,
            "references": {name: {"median": self.median_beside(name), "values": values,
                                  "ratio": self.ratio(name)}
                           for name, values in self.beside.items()},
        }


class Results:
    """All rows, in the order in which they were first measured."""

    def __init__(self):
        self.rows = {}

    def add(self, figures):
        for figure in figures:
            name = (figure.case, figure.key)
            if name not in self.rows:
                self.rows[name] = Row(figure)
            self.rows[name].add(figure)

    def find(self, case, key):
        return self.rows.get((case, key))

    def __iter__(self):
        return iter(self.rows.values())
