"""Samples, their tables, and the little statistics they need."""
import math
import statistics


class Results:
    """Samples by name in order of arrival, and the tables made of them."""

    def __init__(self, folder):
        self.folder, self.samples, self.text = folder, {}, []
        self.file = open(folder / "samples.txt", "w")

    def add(self, name, unit, value):
        self.samples.setdefault(name, []).append(value)
        self.file.write(f"{name} {unit} {value:.6g}\n")
        self.file.flush()

    def __getitem__(self, name):
        return self.samples[name]

    def say(self, text=""):
        print(text, flush=True)
        self.text.append(text)

    def table(self, head, rows):
        rows = [head] + [[c if isinstance(c, str) else short(c) for c in row] for row in rows]
        width = [max(len(row[i]) for row in rows) for i in range(len(head))]
        line = lambda row: "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in
                                             enumerate(zip(row, width))) + " |"
        self.say(line(rows[0]))
        self.say("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(width)) + "|")
        for row in rows[1:]:
            self.say(line(row))
        self.say()

    def finish(self):
        (self.folder / "summary.md").write_text("\n".join(self.text) + "\n")
        self.file.close()


def short(value):
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values):
    """Lowest to highest, as text."""
    return f"{short(min(values))}..{short(max(values))}"


def ratios(a, b):
    return [x / y for x, y in zip(a, b)]


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


median = statistics.median
