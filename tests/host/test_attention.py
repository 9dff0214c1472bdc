"""Attention maps of genuine samplings: nothing changes, and what is recorded was attended."""

import functools
import gc
import importlib
import importlib.util
import itertools
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import comfy.patcher_extension
import comfy_extras.nodes_custom_sampler as custom
import pytest
import seeded
import torch
from comfy.ldm.modules.attention import attention_pytorch
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.maps.attention import watch_attention
from sefi_pack.nodes.host.maps.recording import KEPT_RUNS, Run
from sefi_pack.nodes.host.maps.view import draw_attention
from sefi_pack.nodes.host.maps.words import split_words, word_columns
from sefi_pack.sefi_core.analysis.heatmap import AttentionRecord
from sefi_pack.sefi_core.errors import MismatchError, PictureError, PromptError, SettingsError

import nodes

ROOT = Path(__file__).resolve().parents[2]
TEXT = "a photo of V* with a red hat"
LONG = ", ".join(f"word{i} of a long prompt" for i in range(20))


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def empty(batch=1, height=64, width=64):
    return nodes.EmptyLatentImage().generate(width, height, batch)[0]


def ksampler(
    sampler="euler", scheduler="normal", steps=5, cfg=6.0, latent=None, seed=3, denoise=1.0
):
    def run(model, positive, negative):
        settings = (seed, steps, cfg, sampler, scheduler, positive, negative)
        return nodes.KSampler().sample(model, *settings, latent or empty(), denoise)[0]["samples"]

    return run


def two_halves(model, positive, negative):
    """KSampler Advanced, split in two."""
    args = (3, 10, 6.0, "euler", "normal", positive, negative)
    sample = nodes.KSamplerAdvanced().sample
    half = sample(model, "enable", *args, empty(), 0, 5, "enable")[0]
    return sample(model, "disable", *args, half, 5, 10000, "disable")[0]["samples"]


def custom_advanced(model, positive, negative):
    parts = (
        custom.RandomNoise.execute(3)[0],
        custom.CFGGuider.execute(model, positive, negative, 6.0)[0],
        custom.KSamplerSelect.execute("dpmpp_2m")[0],
        custom.BasicScheduler.execute(model, "karras", 5, 1.0)[0],
    )
    return custom.SamplerCustomAdvanced.execute(*parts, empty())[0]["samples"]


SETTINGS = {
    "euler": ("bad", ksampler()),
    "cfg 1": ("bad", ksampler(cfg=1.0)),
    "batch of 3": ("bad", ksampler(latent=empty(3))),
    "odd size": ("bad", ksampler(latent=empty(1, 72, 104))),
    "ancestral": ("bad", ksampler("dpmpp_2s_ancestral", "karras")),
    "img2img": ("bad", ksampler(denoise=0.5, latent={"samples": torch.ones(1, 4, 8, 8)})),
    "negative of two chunks": (LONG, ksampler()),
    "KSampler Advanced in two": ("bad", two_halves),
    "SamplerCustomAdvanced": ("bad", custom_advanced),
}


def assert_a_map_of_everything(record):
    """The sum over tokens is 1 everywhere, over all stages and in each that was sampled."""
    maps = torch.cat([record.mean()[:, None], record.stages()[:, record.counts > 0]], dim=1)
    assert maps.shape[1] > 1 and (maps >= 0).all()
    assert (maps.sum(dim=2) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("prompt", ["plain", "identity"])
def test_a_watched_model_samples_the_same_bits(setting, prompt, model, clip, learned):
    negative, sample = SETTINGS[setting]
    if prompt == "identity":
        model, positive = apply_identity(model, clip, learned, TEXT)
    else:
        positive = encode(clip, TEXT.replace("V*", "person"))
    plain = sample(model, positive, encode(clip, negative))
    watched, recording = watch_attention(model)
    random_state = torch.get_rng_state()
    samples = sample(watched, positive, encode(clip, negative))
    watched_state = torch.get_rng_state()
    torch.set_rng_state(random_state)
    again = sample(model, positive, encode(clip, negative))
    assert torch.equal(samples, plain) and torch.equal(again, plain)
    assert torch.equal(watched_state, torch.get_rng_state())
    record = recording.prompt(samples, 1)
    assert record.sums.shape == (len(samples), 5, 77, 32, 32)
    assert_a_map_of_everything(record)


def doubled(q, k, v, extra):
    """Another node's attention: twice the host's."""
    return 2.0 * attention_pytorch(q, k, v, extra["n_heads"])


def replaced(model):
    model = model.clone()
    for block in itertools.product(("input", "output"), range(8)):
        model.set_model_attn2_replace(doubled, *block)
    model.set_model_attn2_replace(doubled, "middle", 0)
    return model


def appended(model):
    """Another node's tokens behind those of the prompt, as some image prompts do it."""
    model = model.clone()

    def patch(n, context, value, extra):
        more = torch.full_like(context[:, :4], 0.1)
        return n, torch.cat([context, more], 1), torch.cat([value, more], 1)

    model.set_model_attn2_patch(patch)
    return model


@pytest.mark.parametrize("change", [replaced, appended])
def test_beside_nodes_that_change_cross_attention_in_either_order(change, model, clip, learned):
    applied, positive = apply_identity(model, clip, learned, TEXT)
    plain = ksampler()(change(applied), positive, encode(clip, "bad"))
    assert not torch.equal(plain, ksampler()(applied, positive, encode(clip, "bad")))
    after, after_recording = watch_attention(change(applied))
    before, before_recording = watch_attention(applied)
    for watched, recording in ((after, after_recording), (change(before), before_recording)):
        samples = ksampler()(watched, positive, encode(clip, "bad"))
        assert torch.equal(samples, plain)
        total = recording.prompt(samples, 1).mean().sum(dim=1)
        # Tokens that another node appends take their share; the prompt's own are what is kept.
        assert total.max() < 1.0 - 1e-4 if change is appended else (total - 1).abs().max() < 1e-4
    maps = [r.prompt(plain, 1).mean() for r in (after_recording, before_recording)]
    assert torch.equal(*maps)


def test_the_maps_are_those_of_the_definition(model, clip, learned):
    """Slowly: q and k where the host itself attends, softmax, mean over heads, Re2, mean."""
    applied, positive = apply_identity(model, clip, learned, TEXT)
    expected, counts = torch.zeros(5, 2, 77, 32, 32), torch.zeros(5)
    now = {}

    def note_time(executor, x, timesteps, context, *args, **kwargs):
        now["stage"] = (999 - int(timesteps[0])) // 200
        return executor(x, timesteps, context, *args, **kwargs)

    def note(q, k, v, extra):
        rows = slice(*{0: (0, 2), 1: (2, 4)}[extra["cond_or_uncond"].index(0)])
        height, width = extra["activations_shape"][-2:]
        for i, (q_, k_) in enumerate(zip(q[rows], k[rows], strict=True)):
            heads = zip(q_.chunk(8, dim=-1), k_.chunk(8, dim=-1), strict=True)
            maps = [torch.softmax(a @ b.T / math.sqrt(a.shape[-1]), -1) for a, b in heads]
            grid = torch.stack(maps).mean(0).T.reshape(1, 77, height, width)
            expected[now["stage"], i] += torch.nn.functional.interpolate(
                grid, size=(32, 32), mode="bilinear"
            )[0]
        counts[now["stage"]] += 1
        return attention_pytorch(q, k, v, extra["n_heads"])

    noted = applied.clone()
    noted.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, note_time)
    for block in itertools.product(("input", "output"), range(8)):
        noted.set_model_attn2_replace(note, *block)
    noted.set_model_attn2_replace(note, "middle", 0)
    sample = ksampler(latent=empty(2))
    sample(noted, positive, encode(clip, "bad"))
    watched, recording = watch_attention(applied)
    record = recording.prompt(sample(watched, positive, encode(clip, "bad")), 1)
    assert torch.equal(record.counts, counts) and (counts > 0).all()
    torch.testing.assert_close(
        record.stages(), (expected / counts.view(5, 1, 1, 1, 1)).transpose(0, 1)
    )
    torch.testing.assert_close(record.mean(), expected.sum(0) / counts.sum())


def test_what_is_held_is_bounded(model, clip):
    """4 KiB for each picture, stage and token, whatever the steps; the last samplings only."""
    watched, recording = watch_attention(model, stages=3)
    positive = encode(clip, f"a person, {LONG}")
    bound = 4096 * 2 * 3 * positive[0][0].shape[1] + 4 * 3
    for steps in (1, 12):
        ksampler(latent=empty(2), steps=steps)(watched, positive, encode(clip, ""))
        (*_, run) = recording.runs
        assert sum(record.nbytes for record in run.prompts) == bound
    for seed in range(KEPT_RUNS + 2):
        ksampler(latent=empty(2), steps=1, seed=seed)(watched, positive, encode(clip, ""))
        assert recording.nbytes <= KEPT_RUNS * bound
    assert len(recording.runs) == KEPT_RUNS and not recording.running
    assert all(len(run.ended) == 64 and not run.table for run in recording.runs)


def test_a_latent_finds_its_own_sampling(model, clip):
    watched, recording = watch_attention(model)
    first, second = (
        ksampler(seed=seed)(watched, encode(clip, text), encode(clip, ""))
        for seed, text in ((1, "a person"), (2, "a dog on a long red bench"))
    )
    maps = [recording.prompt(samples, 1).mean() for samples in (first, second)]
    assert not torch.equal(*maps)
    with pytest.raises(SettingsError, match=r"^samples: this latent does not come from a sampler"):
        recording.prompt(first + 1.0, 1)


def test_two_halves_are_recorded_as_one(model, clip):
    watched, recording = watch_attention(model)
    positive, negative = encode(clip, "a person"), encode(clip, "")
    halves = recording.prompt(two_halves(watched, positive, negative), 1)
    whole = recording.prompt(ksampler(steps=10)(watched, positive, negative), 1)
    assert torch.equal(halves.counts, whole.counts)
    torch.testing.assert_close(halves.mean(), whole.mean(), rtol=1e-3, atol=1e-6)


def test_a_finished_picture_that_is_refined_is_recorded_anew(model, clip):
    watched, recording = watch_attention(model)
    positive, negative = encode(clip, "a person"), encode(clip, "")
    first = ksampler()(watched, positive, negative)
    again = ksampler(latent={"samples": first}, denoise=0.4)(watched, positive, negative)
    assert recording.prompt(again, 1).counts[:2].sum() == 0


@pytest.mark.parametrize("kind", ["area", "mask"])
def test_combined_prompts_are_told_apart_and_kept_in_their_place(kind, model, clip, learned):
    applied, person = apply_identity(model, clip, learned, "V* in a hat")
    wall = encode(clip, f"a wall, {LONG}")
    if kind == "area":
        person = nodes.ConditioningSetArea().append(person, 32, 40, 24, 16, 1.0)[0]
    else:
        mask = torch.zeros(1, 64, 64)
        mask[:, :32] = 1.0
        person = nodes.ConditioningSetMask().append(person, mask, "default", 1.0)[0]
    positive = nodes.ConditioningCombine().combine(wall, person)[0]
    plain = ksampler()(applied, positive, encode(clip, "bad"))
    watched, recording = watch_attention(applied)
    samples = ksampler()(watched, positive, encode(clip, "bad"))
    assert torch.equal(samples, plain)
    first, second = (recording.prompt(samples, number) for number in (1, 2))
    assert (first.tokens, second.tokens) == (231, 77)
    assert second.box == ((0.25, 0.375, 0.875, 0.875) if kind == "area" else (0.0, 0.0, 1.0, 1.0))
    # The host calls the model for an area's negative too; that copy is not the prompt's.
    assert torch.equal(first.counts, second.counts)
    assert_a_map_of_everything(first)
    assert_a_map_of_everything(second)
    with pytest.raises(SettingsError, match=r"prompt_number: it is 3, the sampler had 2 positive"):
        recording.prompt(samples, 3)


def test_an_interrupted_sampling_leaves_nothing_behind(model, clip):
    watched, recording = watch_attention(model)
    positive, negative = encode(clip, "a person"), encode(clip, "")
    plain = ksampler()(model, positive, negative)

    def stop(executor, x, timesteps, *args, **kwargs):
        if int(timesteps[0]) < 500:
            raise KeyboardInterrupt
        return executor(x, timesteps, *args, **kwargs)

    stopped = watched.clone()
    stopped.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, stop)
    with pytest.raises(KeyboardInterrupt):
        ksampler()(stopped, positive, negative)
    assert not recording.runs and not recording.running and not recording.current.prompts
    assert torch.equal(ksampler()(watched, positive, negative), plain)
    assert torch.equal(ksampler()(model, positive, negative), plain)
    assert len(recording.runs) == 1


@pytest.mark.parametrize("family", seeded.FAMILIES)
def test_every_family(family):
    clip, model = seeded.FAMILIES[family].clip(), seeded.FAMILIES[family].model()
    positive, negative = encode(clip, "a person in a hat"), encode(clip, "")
    plain = ksampler()(model, positive, negative)
    watched, recording = watch_attention(model)
    samples = ksampler()(watched, positive, negative)
    assert torch.equal(samples, plain)
    assert_a_map_of_everything(recording.prompt(samples, 1))
    assert word_columns(clip, "a person in a hat", ["hat"], None) == {"hat": [5]}


def test_a_large_picture_is_thinned(clip):
    """34 x 32 picture tokens in the coarsest layers: the maps are no larger and still whole."""
    model = seeded.tiny_model(
        channel_mult=[1, 1, 1],
        num_res_blocks=[1, 1, 1],
        transformer_depth=[0, 1, 1],
        transformer_depth_output=[0, 0, 1, 1, 1, 1],
    )
    watched, recording = watch_attention(model)
    sample = ksampler(steps=1, cfg=1.0, latent=empty(1, 1088, 1024))
    samples = sample(watched, encode(clip, "a person"), encode(clip, ""))
    record = recording.prompt(samples, 1)
    assert (record.mean().sum(dim=1) - 1).abs().max() < 1e-4


def test_models_without_text_attention_are_refused():
    with pytest.raises(MismatchError, match="does not draw from CLIP text"):
        watch_attention(seeded.tiny_transformer("Flux"))


# Words and their columns: the tokenizer's own vocabulary says what stands there.


def words_at(clip, text, columns):
    chunks = clip.tokenize(text)["l"]
    ids = [entry[0] for chunk in chunks for entry in chunk]
    vocabulary = clip.tokenizer.clip_l.inv_vocab
    return [vocabulary[ids[column]].removesuffix("</w>") for column in columns]


@pytest.mark.parametrize(
    ("text", "word", "times"),
    [
        ("a photo of a cat, in a catalog of a cat", "cat", 2),
        ("a (red hat:1.3) on a (hat)", "hat", 2),
        (f"{LONG}, and then a zebra", "zebra", 1),
        ("A Photo of ANNA", "anna", 1),
        ("a man with long straight purple hair", "long straight purple hair", 1),
        ("supercalifragilistic things", "supercalifragilistic", 1),
    ],
)
def test_a_word_is_found_wherever_it_stands(text, word, times, clip):
    columns = word_columns(clip, text, [word], None)[word]
    assert "".join(words_at(clip, text, columns)) == times * word.replace(" ", "")


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_placeholder_has_its_slot_and_moves_the_words_behind_it(tokens, clip, learned):
    pairs = {name: p.expand(-1, -1, tokens, -1) for name, p in learned.pairs.items()}
    identity = type(learned)(pairs, placeholder="<anna>")
    columns = word_columns(
        clip, "a photo of (<anna>:1.2) in a hat, <anna>'s", ["<anna>", "hat"], identity
    )
    assert columns["<anna>"][:tokens] == list(range(4, 4 + tokens))
    assert len(columns["<anna>"]) == 2 * tokens
    assert columns["hat"] == [6 + tokens]


def test_a_placeholder_of_the_artist_s_own_is_heeded(clip, learned):
    columns = word_columns(
        clip, "a photo of <my-anna>, hat", ["<my-anna>", "hat"], None, "<my-anna>"
    )
    assert columns == {"<my-anna>": [4], "hat": [6]}
    assert word_columns(clip, "V* in a hat", ["hat"], learned, "") == {"hat": [4]}


def test_the_slot_is_where_the_identity_is(model, clip, learned):
    """Keys of the conditioning differ from the class word's first in the placeholder's column."""
    _, conditioning = apply_identity(model, clip, learned, TEXT)
    contexts = conditioning[0][1]["sefi"]
    changed = (contexts.keys[0] - contexts.reference[0]).abs().amax(dim=-1) > 1e-6
    (first,) = word_columns(clip, TEXT, ["V*"], learned)["V*"]
    assert int(changed.nonzero()[0]) == first


def test_words_that_are_not_there_are_one_sentence(clip):
    with pytest.raises(PromptError, match=r'^words: "dog" does not stand in the text "a cat"'):
        word_columns(clip, "a cat", ["cat", "dog"], None)
    with pytest.raises(SettingsError, match=r"^words: there are 0; write 1 to 16 words"):
        split_words(" ,\n")
    assert split_words("V*, red hat\nV*") == ["V*", "red hat"]


# Drawing.


@pytest.fixture
def drawn(model, clip, learned):
    """Draws a sampling of two pictures, with changes to the node's inputs."""
    applied, positive = apply_identity(model, clip, learned, TEXT)
    watched, recording = watch_attention(applied)
    samples = ksampler(latent=empty(2, 64, 96))(watched, positive, encode(clip, ""))
    image = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    inputs = {
        "recording": recording, "samples": {"samples": samples}, "image": image, "clip": clip,
        "text": TEXT, "words": "V*, red hat", "identity": learned,
    }  # fmt: skip
    return functools.partial(draw_attention, **inputs)


def test_every_picture_and_word_is_drawn(drawn):
    overlays, sheets, heat, share, report = drawn()
    assert overlays.shape == (4, 64, 96, 3) and heat.shape == (4, 64, 96)
    assert sheets.shape[0] == 2 and sheets.shape[2] > 6 * 200
    assert all(0.0 <= x.min() and x.max() <= 1.0 for x in (overlays, sheets, heat))
    assert heat.amax() == 1.0 and heat.amin() < 0.05
    assert math.isnan(share) and report.count("\n") == 5 and "| red hat | no mask |" in report
    plain = drawn(opacity=0.0)[0]
    assert torch.equal(plain[0, 40:], drawn(words="hat", opacity=0.0)[0][0, 40:])


def test_a_stage_that_was_not_sampled_says_so_and_dims_no_other(drawn, model, clip):
    watched, recording = watch_attention(model)
    sample = ksampler(denoise=0.3, latent={"samples": torch.ones(1, 4, 8, 8)})
    samples = sample(watched, encode(clip, TEXT), encode(clip, ""))
    inputs = {"samples": {"samples": samples}, "image": torch.rand(1, 64, 64, 3)}
    _, sheet, *_, report = drawn(recording=recording, words="hat", **inputs)
    assert report.splitlines()[2].count("not sampled") == 3
    assert recording.prompt(samples, 1).counts.tolist()[:3] == [0, 0, 0]
    assert torch.isfinite(sheet).all()


def test_the_share_in_a_mask_is_what_lies_in_it(drawn):
    left = torch.zeros(1, 64, 96)
    left[..., :48] = 1.0
    shares = [drawn(mask=mask)[3] for mask in (left, 1.0 - left, torch.ones(64, 96))]
    assert shares[0] + shares[1] == pytest.approx(1.0) and shares[2] == pytest.approx(1.0)
    recording, samples = drawn.keywords["recording"], drawn.keywords["samples"]["samples"]
    maps = recording.prompt(samples, 1).mean()[:, 4]  # the column of V*, in both pictures
    halves = maps[..., :16].sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    assert shares[0] == pytest.approx(float(halves.mean()), rel=0.01)  # resized, hence not exactly
    assert drawn(mask=left)[4].endswith("The mask covers 50.0% of the picture: what chance gives.")


def test_words_act_where_their_things_are():
    """In the one trained model at hand: the hat is on the head, the ball in the hand below."""
    place = ROOT / "benchmarks/world"
    spec = importlib.util.spec_from_file_location(
        "world", place / "__init__.py", submodule_search_locations=[str(place)]
    )
    sys.modules["world"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["world"])
    model, clip, vae = importlib.import_module("world.load").load()
    text = "a photo of lucy wearing a hat holding a ball at the beach"
    watched, recording = watch_attention(model)
    sample = ksampler(steps=12, cfg=5.0, seed=5, latent=empty(1, 128, 128))
    samples = sample(watched, encode(clip, text), encode(clip, ""))
    upper = torch.zeros(1, 64, 64)
    upper[:, :32] = 1.0
    shares = {}
    for word in ("hat", "ball"):
        *_, shares[word], _ = draw_attention(
            recording, {"samples": samples}, vae.decode(samples), clip, text, word, mask=upper
        )
    assert shares["hat"] > 0.55 > 0.45 > shares["ball"]


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"image": torch.rand(1, 64, 96, 3)}, PictureError, "image: 1 picture"),
        ({"mask": torch.rand(1, 64, 64)}, PictureError, "mask: there are 1 of 64 x 64 pixels"),
        ({"text": f"V*, {LONG}, red hat"}, SettingsError, "text: it is longer than the prompt"),
        ({"prompt_number": 2}, SettingsError, "prompt_number: it is 2"),
        ({"words": "dog"}, PromptError, 'words: "dog" does not stand'),
        ({"samples": {"samples": torch.zeros(2, 4, 8, 12)}}, SettingsError, "samples: this latent"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes, kind, sentence, drawn):
    with pytest.raises(kind, match=f"^{sentence}") as error:
        drawn(**changes)
    assert "\n" not in str(error.value)


def sampled(model, clip, seed=3):
    return ksampler(steps=1, seed=seed)(model, encode(clip, "a person"), encode(clip, "bad"))


def test_a_recording_that_was_let_go_is_told_from_a_wrong_link(model, clip):
    """The host frees the recording and keeps the latent; the node then makes a new one."""
    watched, recording = watch_attention(model, node_id="7")
    samples = sampled(watched, clip)
    _, another = watch_attention(model, node_id="8")
    with pytest.raises(SettingsError, match="that another SeFi Attention Map watched"):
        another.prompt(samples, 1)
    _, renewed = watch_attention(model, node_id="7")
    with pytest.raises(SettingsError, match="no longer held"):
        renewed.prompt(samples, 1)
    with pytest.raises(SettingsError, match="does not come from a sampler"):
        recording.prompt(sampled(model, clip, seed=8), 1)
    del watched, recording
    model.model.current_patcher = None  # the last one to have sampled
    gc.collect()
    with pytest.raises(SettingsError, match="no longer held"):
        another.prompt(samples, 1)


def test_a_latent_of_too_many_samplings_ago_says_so(model, clip):
    watched, recording = watch_attention(model)
    first, *_, last = [sampled(watched, clip, seed) for seed in range(KEPT_RUNS + 1)]
    assert recording.prompt(last, 1).counts.sum() > 0
    with pytest.raises(SettingsError, match=f"{KEPT_RUNS} later samplings"):
        recording.prompt(first, 1)


def test_a_model_watched_twice_records_in_both(model, clip):
    once, one = watch_attention(model, node_id="1")
    twice, two = watch_attention(once, node_id="2")
    samples = sampled(twice, clip)
    assert torch.equal(one.prompt(samples, 1).mean(), two.prompt(samples, 1).mean())
    _, renewed = watch_attention(model, node_id="1")
    with pytest.raises(SettingsError, match="no longer held"):
        renewed.prompt(samples, 1)


def test_samplings_in_two_threads_keep_apart(model, clip):
    """Each has its own model, and a recording in common."""
    watched, recording = watch_attention(model)
    alone = {seed: sampled(watched, clip, seed) for seed in (1, 2)}
    expected = {seed: recording.prompt(alone[seed], 1).mean() for seed in alone}
    recording.runs.clear()
    inside = threading.Barrier(2, timeout=60)

    def run(seed):
        with torch.inference_mode(), recording.under_way(Run()) as mine:
            assert recording.current is mine
            inside.wait()
            uuid, record = uuid4(), AttentionRecord(recording.edges, 77)
            mine.table[uuid] = record
            inside.wait()
            assert recording.rows([uuid], 1) == [(slice(0, 1), record)]
            inside.wait()
            assert recording.current is mine
        return recording.current is not mine

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(run, (1, 2)))
    assert not recording.running
    again = sampled(watched, clip, 1)
    assert torch.equal(recording.prompt(again, 1).mean(), expected[1])


def test_a_sampling_inside_a_sampling_leaves_the_outer_one_its_prompts(model, clip):
    watched, recording = watch_attention(model)
    with recording.under_way(Run()) as outer:
        sampled(watched, clip)
        assert recording.current is outer and recording.running == [outer]
