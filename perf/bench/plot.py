"""latest.png and latest.svg: the rates of one run beside their references, drawn by gnuplot."""

import shutil
import subprocess

SCRIPT = """set output "{folder}/latest.{form}"
set terminal {terminal}
set title "{title}" noenhanced
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.8 border -1
set boxwidth 0.9
set ylabel "messages/s"
set yrange [1:]
set logscale y
set grid ytics
set key outside top center horizontal noenhanced
set xtics rotate by -20 noenhanced
plot {series}
"""
TERMINALS = {"png": 'pngcairo size 1100,600 font "sans,10"', "svg": 'svg size 1100,600 font "sans,11"'}
REFERENCES = ("generator to sink", "Postfix")


def rows_of(results):
    """(label, flywheel, reference, Postfix) of every rate that has a reference."""
    for row in results:
        if row.unit == "messages/s" and any(name in row.beside for name in REFERENCES):
            values = [row.median_beside(name) if name in row.beside else None
                      for name in REFERENCES]
            yield [f"{row.case} {row.text.split(':')[0]}", row.median(), *values]


def draw(folder, facts, results):
    """Returns the files that were written; none without gnuplot or anything to draw."""
    rows = list(rows_of(results))
    if not rows or not shutil.which("gnuplot"):
        return []
    data = folder / "latest.data"
    data.write_text("".join(
        "\t".join([f'"{row[0]}"'] + ["-" if v is None else f"{v:.1f}" for v in row[1:]]) + "\n"
        for row in rows), encoding="utf-8")
    names = ["flywheel", *REFERENCES]
    series = ", ".join(f'"{data}" using {i + 2}:xtic(1) title "{name}"'
                       for i, name in enumerate(names))
    title = f"flywheel {facts['commit']}, {facts['machine']}, {facts['date']}"
    files = []
    for form, terminal in TERMINALS.items():
        script = SCRIPT.format(folder=folder, form=form, terminal=terminal, title=title,
                               series=series)
        done = subprocess.run(["gnuplot"], input="set datafile separator tab\n" +
                              'set datafile missing "-"\n' + script, text=True, check=False,
                              capture_output=True)
        if done.returncode == 0:
            files.append(folder / f"latest.{form}")
    data.unlink()
    return files
