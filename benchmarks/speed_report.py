"""Speed results as a table in Markdown and as a picture."""

__all__ = ["RESULTS", "write_report"]

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")

RESULTS = Path(__file__).with_name("results") / "speed.json"
Records = dict[str, dict]

# By part: what the ratio is, and the target that it is held against.
ROWS: dict[str, tuple[str, str, float]] = {
    "floor": ("step / bare forward and backward", "<=", 1.15),
    "attention": ("step with / without attention loss", "<=", 1.08),
    "literal": ("the paper's loop as it reads / step", ">=", 2.0),
    "lora": ("the host's Train LoRA, rank 8 / step", ">=", 1.0),
    "inversion": ("diffusers' Textual Inversion / step", ">=", 1.0),
    "checkpointing": ("step with / without checkpointing", "<=", 1.4),
    "applied": ("sampling with / without an identity", "<=", 1.03),
    "together 2": ("2 at once, each / one alone", "<=", 1.0),
    "together 4": ("4 at once, each / one alone", "<=", 1.0),
    "together 8": ("8 at once, each / one alone", "<=", 0.8),
    "memory": ("peak memory: step / bare forward and backward", "<=", 1.1),
}
CHECKPOINTED = "peak memory: with / without checkpointing", "<=", 0.6


def lines(records: Records) -> list[tuple[str, str, str, float, str, str, float]]:
    """Returns (size, what, batch, ratio, beside it, sign, target) in the order of the parts."""
    found = []
    for key, record in records.items():
        size, part, batch = key.split(" | ")
        what, sign, target = ROWS[part]
        target = 1.10 if part == "floor" and int(batch) > 1 else target
        order = list(ROWS).index(part)
        beside = ""
        if part == "memory":
            peaks = {name: f"{count / 2**30:.2f}" for name, count in record["bytes"].items()}
            beside, text = (
                f"{peaks[above]} / {peaks[below]} GiB, {peaks['loaded']} before the first step"
                for above, below in (("ours", "floor"), ("checkpointed", "ours"))
            )
            ratio = record["checkpointed ratio"]
            found.append((order, (size, CHECKPOINTED[0], batch, ratio, text, *CHECKPOINTED[1:])))
        else:
            low, high = record["range"]
            seconds = min(record["above"]), min(record["below"])
            beside = f"{low:.3f} .. {high:.3f}; {seconds[0]:.3g} s / {seconds[1]:.3g} s"
        if "unet calls" in record:
            beside += "; UNet calls {} and {}".format(*record["unet calls"])
        found.append((order, (size, what, batch, record["ratio"], beside, sign, target)))
    return [line for _, line in sorted(found, key=lambda one: (one[1][0], one[0], one[1][2]))]


def write_report(records: Records, path: Path) -> str:
    """Writes the table and the picture beside the results; returns the table."""
    heading = "| model | ratio | batch | median | range; fastest | target | met |"
    rows = [heading, "| --- | --- | --- | --- | --- | --- | --- |"]
    for size, what, batch, ratio, beside, sign, target in lines(records):
        met = "yes" if (ratio <= target if sign == "<=" else ratio >= target) else "**no**"
        cells = (size, what, batch, f"{ratio:.3f}", beside, f"{sign} {target:g}", met)
        rows.append(f"| {' | '.join(cells)} |")
    text = "\n".join(rows) + "\n"
    path.with_suffix(".md").write_text(text)
    draw(records, path.with_suffix(".png"))
    return text


def draw(records: Records, path: Path) -> None:
    """Draws each ratio as a bar against its target."""
    table = lines(records)[::-1]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.32 * len(table)), layout="constrained")
    ratios = [line[3] for line in table]
    met = [(r <= t if s == "<=" else r >= t) for *_, r, _, s, t in table]
    places = range(len(table))
    axes.barh(places, ratios, color=["#4c8c5a" if good else "#b5543f" for good in met])
    axes.scatter([line[6] for line in table], places, marker="|", s=160, color="black", zorder=3)
    axes.set_yticks(places, [f"{size}, batch {b}: {what}" for size, what, b, *_ in table])
    axes.bar_label(axes.containers[0], [f" {ratio:.2f}" for ratio in ratios], fontsize=8)
    axes.set_xlabel("ratio; the line is the target")
    axes.tick_params(axis="y", labelsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
