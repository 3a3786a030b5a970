"""Pictures of what was measured, as SVG without anything else."""
import math

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT, LEGEND = 720, 360, 64, 48, 40, 24, 268
COLOURS = ["#0b6e99", "#c2571a", "#5b8c2a", "#7a4fa3"]
STYLE = ("<style>text{font:13px sans-serif;fill:#444}.t{font-size:16px;fill:#111}line{stroke:#ccc}polyline{fill:none;"
         "stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#bbb}.t{fill:#eee}line{stroke:#555}}</style>")


def steps(most):
    """Round numbers from 0 to @most or beyond."""
    step = 10 ** (len(str(int(most))) - 1)
    while most / step < 4:
        step /= 2
    return [step * i for i in range(math.ceil(most / step) + 1)]


def text(x, y, what, anchor="middle", css=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{what}</text>'


def draw_lines(path, title, x_title, y_title, series):
    """@series: name to list of (x, y); both axes begin at 0."""
    xs = steps(max(x for line in series.values() for x, _ in line))
    ys = steps(max(y for line in series.values() for _, y in line))
    px = lambda x: LEFT + x / xs[-1] * (WIDTH - LEFT - RIGHT)
    py = lambda y: HEIGHT - BOTTOM - y / ys[-1] * (HEIGHT - BOTTOM - TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">', STYLE,
           text(LEFT, 22, title, "start", ' class="t"')]
    for y in ys:
        out += [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>', text(LEFT - 8, py(y) + 4, f"{y:g}", "end")]
    for x in xs:
        out.append(text(px(x), HEIGHT - BOTTOM + 18, f"{x:g}"))
    out += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_title),
            f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{y_title}</text>']
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        out += [f'<polyline stroke="{colour}" points="{" ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line)}"/>',
                f'<rect x="{LEGEND + 154 * i}" y="11" width="12" height="12" fill="{colour}"/>',
                text(LEGEND + 18 + 154 * i, 22, name, "start")]
    path.write_text("\n".join([*out, "</svg>"]) + "\n")


def distribution(samples):
    """How many percent took at most so long."""
    line = sorted(samples)
    return [(line[0], 0)] + [(x, (i + 1) / len(line) * 100) for i, x in enumerate(line)]


def draw(res, folder):
    got = res.samples
    starts = {title: distribution(got[name]) for title, name in (
        ("roux run, live template", "start/roux"), ("roux run, template", "start/disk"), ("runc run", "start/runc"), ("crun run", "start/crun")) if name in got}
    if starts:
        draw_lines(folder / "start-times.svg", "Start to exit of true", "ms", "% of runs that took at most so long", starts)
    counts = sorted(int(name.split("/")[1]) for name in got if name.startswith("clones/") and name.endswith("/system"))
    if len(counts) > 1:
        sums = lambda part: [(n, n * sorted(got[f"clones/{n}/{part}"])[len(got[f"clones/{n}/{part}"]) // 2] / 1024) for n in counts]
        draw_lines(folder / "clone-memory.svg", "Memory of idle machines", "machines", "MiB",
                   {"whole system": sums("system"), "VMs, private": sums("vm-private"), "monitors, private": sums("monitor-private")})
