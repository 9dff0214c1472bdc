"""Ten scripts from the door to the picture: an identity is trained with a class word, a name, a
prompt and a file of its script, saved, listed, loaded and applied, queued over HTTP as a page does.
"""

import unicodedata

import numpy as np
import pytest
from comfy_server import ROOT
from PIL import Image

MINIATURE = ROOT / "benchmarks/world/miniature.safetensors"
pytestmark = pytest.mark.skipif(not MINIATURE.is_file(), reason="there is no miniature")

SCRIPTS = {  # name, class word, prompt
    "Gujarati": ("મીરા", "વ્યક્તિ", "બગીચામાં V*નો ફોટો"),
    "Gurmukhi": ("ਸਿਮਰਨ", "ਵਿਅਕਤੀ", "V* ਦੀ ਤਸਵੀਰ"),
    "Odia": ("ମୀରା", "ବ୍ୟକ୍ତି", "V*ଙ୍କ ଫଟୋ"),
    "Malayalam": ("അമ്മു", "വ്യക്തി", "പൂന്തോട്ടത്തിൽ V*"),
    "Syriac": ("ܫܡܥܘܢ", "ܒܪܢܫܐ", "ܨܘܪܬܐ ܕV*"),
    "Balinese": ("ᬓᭂᬢᬸᬢ᭄", "ᬚᬦ᭄ᬫ", "ᬨᭀᬢᭀV*ᬭᬶᬂᬢᬫᬦ᭄"),
    "Tai Tham": ("ᨾᩯ᩵ᨹᩯᩁ", "ᨤᩫ᩠ᨶ", "ᩁᩪᨷV*ᨶᩱᩈ᩠ᩅᩁ"),
    "Meetei Mayek": ("ꯇꯣꯝꯕꯤ", "ꯃꯤꯑꯣꯏ", "V*ꯒꯤ ꯐꯣꯇꯣ"),
    "Bopomofo": ("ㄨㄤˊ ㄇㄟˊ", "ㄖㄣˊ", "V*ㄉㄜ˙ㄓㄠˋㄆㄧㄢˋ"),
    "Osage": ("𐓏𐓘𐓲𐓘𐓲𐓟", "𐓁𐓣𐓤𐓘", "V* 𐓷𐓣𐓟"),
}


def drawn(identity, prompt, **inputs):
    """Returns the nodes that draw a picture with the identity of a node."""
    nodes = {
        "apply": (
            "ApplySeFiConditioning",
            {"model": ["world", 0], "clip": ["world", 1], "identity": [identity, 0],
             "text": prompt, **inputs},
        ),
        "plain": ("CLIPTextEncode", {"clip": ["world", 1], "text": ""}),
        "latent": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        "sample": (
            "KSampler",
            {"model": ["apply", 0], "positive": ["apply", 1], "negative": ["plain", 0],
             "latent_image": ["latent", 0], "seed": 1, "steps": 1, "cfg": 2.0,
             "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["world", 2]}),
        "picture": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "scripts"}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": values} for name, (kind, values) in nodes.items()}


WORLD = {"class_type": "LoadMiniatureWorld", "inputs": {"checkpoint": MINIATURE.name}}
SHORT = {
    "steps": 1, "learning_rate": 0.005, "attention_loss_weight": 0.001, "train_seed": 0,
    "preset": "paper", "resolution": 64, "preview_every": 0, "checkpoint_every": 0,
    "model": ["world", 0], "clip": ["world", 1], "vae": ["world", 2], "image": ["face", 0],
}  # fmt: skip


def trained(name, word, prompt):
    parts = {
        "world": WORLD,
        "face": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "train": {
            "class_type": "TrainSeFiID", "inputs": {**SHORT, "class_word": word, "name": name},
        },
        "save": {
            "class_type": "SaveSeFiEmbedding",
            "inputs": {"identity": ["train", 0], "filename_prefix": f"{name}/{name}"},
        },
    }  # fmt: skip
    return {**parts, **drawn("train", prompt)}


def pixels(server, run):
    assert (run.status, run.error) == ("success", "")
    (saved,) = run.outputs["picture"]["images"]
    return np.asarray(Image.open(server.folder / "output" / saved["subfolder"] / saved["filename"]))


def test_ten_scripts_are_trained_saved_loaded_and_applied(miniature_server):
    server, pictures, files = miniature_server, {}, {}
    for script, (name, word, prompt) in SCRIPTS.items():
        run = server.run(trained(f" {name}\n", f"{word} ", prompt))
        pictures[script] = pixels(server, run)
        files[script] = unicodedata.normalize("NFC", f"{name}/{name}_00001_.safetensors")
        assert (server.folder / "models/sefi" / files[script]).is_file()
    (offered,) = server.get("object_info/LoadSeFiEmbedding")["LoadSeFiEmbedding"]["input"][
        "required"
    ].values()
    assert set(files.values()) <= set(
        offered[1]["options"] if offered[0] == "COMBO" else offered[0]
    )
    cards = {card["name"]: card for card in server.get("sefi/identities")}
    for script, (name, word, prompt) in SCRIPTS.items():
        assert cards[files[script]]["class_word"] == unicodedata.normalize("NFC", word)
        choice = {"embedding": files[script].replace("/", "\\")}
        loaded = {"world": WORLD, "load": {"class_type": "LoadSeFiEmbedding", "inputs": choice}}
        own = {"placeholder": unicodedata.normalize("NFD", f"<{name}>")}
        renamed = server.run(loaded | drawn("load", prompt.replace("V*", f"<{name}>"), **own))
        assert np.array_equal(pixels(server, renamed), pictures[script]), script
