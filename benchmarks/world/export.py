"""Writes a run's averaged weights as the miniature: `python -m benchmarks.world.export`."""

__all__ = ["export", "main"]

import argparse
from pathlib import Path

import torch
from torch import Tensor

from .captions import FILLERS
from .dataset import Words
from .files import MINIATURE, named_row, write
from .model import Miniature
from .subjects import KINDS, NAMES, TRAITS, named
from .train import DEFAULT_RUN, SEED

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


def export(run: Path, path: Path) -> dict[str, object]:
    """Writes the miniature and returns its card."""
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
    write(tensors, card, path)
    return card


def card_text(card: dict[str, object], size: int) -> str:
    """Returns the card as a page."""
    losses = "\n".join(f"| {step} | {loss:.4f} |" for step, loss in card["loss"][1::2])
    return f"""# {card["title"]}: the card

A toy text-to-image model for tests and demos, made by `python -m benchmarks.world.export`.

| | |
| --- | --- |
| file | `miniature.safetensors`, {size / 1e6:.1f} MB, fp16 |
| networks | ComfyUI's UNetModel (64 channels, 4.3 M parameters), CLIP text model (4 x 128) |
| latents | 16 x 16 x 16, a fixed linear map of 4 x 4 patches (98 % of their variance) |
| prediction | noise, on Stable Diffusion's schedule; one skip around the UNet |
| data | {card["data"]} |
| begun from | {card["begun_from"] or "random weights"} |
| steps | {card["steps"]:,} of {card["batch"]} pictures ({card["pictures"]:,} in all, none twice) |
| optimiser | AdamW, flat then cosine; weights averaged (0.999); bf16; captions dropped 10 % |
| loss at the end | {card["loss_at_end"]} (mean squared error of the noise, unweighted) |
| seed | {card["seed"]} |

Not for anything but measuring this pack: it knows {len(card["words"])} words and draws cartoons.

| step | loss |
| --- | --- |
{losses}
"""


def main() -> None:
    """Reads the command line and exports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=DEFAULT_RUN, help="folder of the run's state")
    parser.add_argument("--out", type=Path, default=MINIATURE)
    options = parser.parse_args()
    card = export(options.run, options.out)
    size = options.out.stat().st_size
    options.out.with_name("CARD.md").write_text(card_text(card, size))
    print(f"{options.out}: {size / 1e6:.1f} MB, {card['steps']} steps, loss {card['loss_at_end']}")


if __name__ == "__main__":
    main()
