"""Writes a run's averaged weights as a miniature: `python -m benchmarks.world.export`."""

__all__ = ["export", "main"]

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .captions import FILLERS
from .dataset import Words
from .files import MINIATURE, SCALES, named_row, own_file, read, write
from .model import Miniature
from .subjects import KINDS, NAMES, TRAITS, named
from .train import DEFAULT_RUN, SEED

SCHEDULES = {
    1: "Stable Diffusion's own",
    2: "that of Stable Diffusion / 2",
    4: "that of Stable Diffusion / 4: SD 1.5 at 512",
    8: "that of Stable Diffusion / 8: SDXL at 1024",
}
TABLE = "text_model.embeddings.token_embedding.weight"


def averaged(state: dict[str, object]) -> Miniature:
    """Returns the run's networks with the moving average for weights."""
    model = Miniature(state["model"]["tokens"])
    model.load_state_dict(state["model"])
    for parameter, average in zip(model.parameters(), state["average"], strict=True):
        parameter.data.copy_(average)
    return model.requires_grad_(False)


def table(model: Miniature) -> tuple[list[str], Tensor, Tensor]:
    """Returns words, CLIP ids (n,) and rows (n, E): the vocabulary, then every listed name."""
    words, rows = Words(), model.text.get_input_embeddings().weight
    entries = [("<start>", words.tokens[0], rows[0]), ("<end>", words.tokens[1], rows[1])]
    entries += [(word, words.tokens[i], rows[i]) for word, i in words.numbers.items()]
    for kind, basis in zip(KINDS, model.names, strict=True):
        for name, subject in named(kind).items():
            row = named_row(rows[words.numbers[kind]], basis, subject)
            entries.append((name, torch.tensor(words.token(name)), row))
    names, ids, found = zip(*entries, strict=True)
    return list(names), torch.stack(ids).int(), torch.stack(found)


def export(run: Path, path: Path | None = None) -> dict[str, object]:
    """Writes the miniature, where its schedule says if no path does, and returns its card."""
    state = torch.load(run / "state.pt", mmap=True)
    model = averaged(state)
    words, ids, rows = table(model)
    text = {k: v for k, v in model.text.state_dict().items() if k != TABLE}
    tensors = {
        "tokens.ids": ids,
        "tokens.rows": rows,
        **{f"unet.{k}": v for k, v in model.unet.state_dict().items()},
        **{f"text.{k}": v for k, v in text.items()},
        **{f"names.{kind}": basis for kind, basis in zip(KINDS, model.names, strict=True)},
        **{f"patches.{k}": v for k, v in state["patches"].items()},
    }
    steps, log = state["step"], state["log"]
    card = {
        "title": "Miniature World",
        "data": "the drawn world of benchmarks/world, drawn anew for every batch",
        "steps": steps,
        "batch": state["batch"],
        "scale": state["scale"],
        "offset": state["offset"],
        "begun_from": state["begun_from"],
        "pictures": steps * state["batch"],
        "seed": SEED,
        "loss": [(step, round(loss, 5)) for step, loss, *_ in log[9::10]],
        "loss_at_end": round(sum(row[1] for row in log[-10:]) / len(log[-10:]), 5),
        "words": words,
        "fillers": list(FILLERS),
        "traits": TRAITS,
        "names": NAMES,
    }
    write(tensors, card, path or own_file(card["scale"]))
    return card


def card_text(files: dict[Path, dict[str, object]]) -> str:
    """Returns the cards of the written files as one page, a column each."""

    def row(label: str, cell: Callable[[Path, dict], str]) -> str:
        return (
            " | ".join([f"| {label}", *(cell(path, card) for path, card in files.items())]) + " |"
        )

    lines = (
        row("file", lambda path, _: f"`{path.name}`, {path.stat().st_size / 1e6:.1f} MB"),
        row("---", lambda *_: "---"),
        row("schedule: sigma", lambda _, card: SCHEDULES[card.get("scale", 1)]),
        row("begun from", lambda _, card: card["begun_from"] or "random weights"),
        row("steps", lambda _, card: f"{card['steps']:,} of {card['batch']} pictures"),
        row("offset noise", lambda _, card: str(card.get("offset") or "none")),
        row("loss at the end", lambda _, card: str(card["loss_at_end"])),
    )
    table = "\n".join(lines)
    words = max(len(card["words"]) for card in files.values())
    return f"""# Miniature World: the card

Toy text-to-image models for tests and demos, made by `python -m benchmarks.world.export`: the first
file, and those that went on from it on schedules of their own.

{table}

- Networks: ComfyUI's UNetModel (64 channels, 4.3 M parameters), CLIP text model (4 x 128); fp16.
- Latents: 16 x 16 x 16, a fixed linear map of 4 x 4 patches (98 % of their variance).
- Prediction: the noise; one skip around the UNet.
- Data: the drawn world of benchmarks/world, drawn anew for every batch, no picture twice.
- Training: AdamW, flat then cosine; weights averaged (0.999); bf16; captions dropped 10 %.
- Seed: {SEED}.
- Loss: mean squared error of the noise, unweighted; offset noise counts in it.

Not for anything but measuring this pack: they know {words} words and draw cartoons.
"""


def main() -> None:
    """Reads the command line and exports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=DEFAULT_RUN, help="folder of the run's state")
    parser.add_argument("--out", type=Path, help="a file other than the one of the run's schedule")
    options = parser.parse_args()
    card = export(options.run, options.out)
    written = {path: read(path).card for path in map(own_file, SCALES) if path.is_file()}
    MINIATURE.with_name("CARD.md").write_text(card_text(written))
    print(f"s = {card['scale']}: {card['steps']} steps, loss {card['loss_at_end']}")


if __name__ == "__main__":
    main()
