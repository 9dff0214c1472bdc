"""The graphs that are run beside real packs: of each what comes between Apply and the picture.

"name@2" is a node's third output. Every graph has the nodes parts (model, CLIP, identity, VAE),
latent, mask, negative, wall (a prompt of a wall) and apply.
"""

__all__ = ["ROWS", "SDXL_ROWS", "Graph", "applied"]

from typing import Any

Graph = dict[str, Any]
SAMPLING = {
    "seed": 3, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal",
    "denoise": 1.0,
}  # fmt: skip


def sampled(
    model: str = "apply@0",
    positive: str = "apply@1",
    negative: str = "negative@0",
    **named: tuple[str, dict],
) -> Graph:
    """Returns nodes by name, with a sampler at the end; "name@2" is a node's third output."""
    picture = {
        **SAMPLING,
        "model": model,
        "positive": positive,
        "negative": negative,
        "latent_image": "latent@0",
    }
    return {**named, "picture": ("KSampler", picture)}


def applied(model: str) -> tuple[str, dict]:
    inputs = {"model": model, "clip": "parts@1", "identity": "parts@2", "text": "a photo of V*"}
    return "ApplySeFiConditioning", inputs


def region(kind: str, base: str, of: str, **base_cond: str) -> Graph:
    """Returns Attention Couple with one prompt everywhere and one in a region."""
    inputs = {"model": "apply@0", "base_mask": "mask@0", "cond_1": of, "mask_1": "mask@0"}
    return sampled("couple@0", base, couple=(kind, {**inputs, **base_cond}))


def pipe(model: str, positive: str) -> tuple[str, dict]:
    inputs = {"model": model, "clip": "parts@1", "vae": "parts@3", "positive": positive}
    return "ToBasicPipe", {**inputs, "negative": "negative@0"}


def provider(basic_pipe: str) -> tuple[str, dict]:
    names = {"cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "sigma_factor": 1.0}
    return "KSamplerAdvancedProvider", {**names, "basic_pipe": basic_pipe}


REGIONAL = {
    "whole": pipe("apply@0", "wall@0"),
    "person": pipe("apply@0", "apply@1"),
    "base": provider("whole@0"),
    "inside": provider("person@0"),
    "place": ("RegionalPrompt", {"mask": "mask@0", "advanced_sampler": "inside@0"}),
    "picture": (
        "RegionalSampler",
        {
            "seed": 3, "seed_2nd": 0, "seed_2nd_mode": "ignore", "steps": 6, "base_only_steps": 1,
            "denoise": 1.0, "samples": "latent@0", "base_sampler": "base@0",
            "regional_prompts": "place@0", "overlap_factor": 10, "restore_latent": True,
            "additional_mode": "ratio between", "additional_sampler": "AUTO",
            "additional_sigma_ratio": 0.3,
        },
    ),
}  # fmt: skip
CADS = {"noise_scale": 0.25, "t1": 0.0, "t2": 0.9, "key": "both", "seed": 3}
PPM, CGEM = "AttentionCouplePPM", "AttentionCouple|cgem156"
ROWS: dict[str, Graph] = {
    "no other pack": sampled(),
    "CADS, after ours": sampled("cads@0", cads=("CADS", {"model": "apply@0", **CADS})),
    "ppm CADS, after ours": sampled(
        "cads@0",
        cads=(
            "CADSPPM", {"model": "apply@0", "scale": 0.25, "start_percent": 0.0, "end_percent": 0.9}
        ),
    ),
    "ppm Attention Couple, ours everywhere": region(PPM, "apply@1", "wall@0", base_cond="apply@1"),
    "ppm Attention Couple, ours in the region": region(
        PPM, "wall@0", "apply@1", base_cond="wall@0"
    ),
    "cgem Attention Couple, ours everywhere": region(CGEM, "apply@1", "wall@0"),
    "cgem Attention Couple, ours in the region": region(CGEM, "wall@0", "apply@1"),
    "Impact EditBasicPipe, positive alone": sampled(
        "out@0",
        "out@3",
        plain=pipe("parts@0", "wall@0"),
        edited=("EditBasicPipe", {"basic_pipe": "plain@0", "positive": "apply@1"}),
        out=("FromBasicPipe", {"basic_pipe": "edited@0"}),
    ),
    "Impact EditBasicPipe, model and positive": sampled(
        "out@0",
        "out@3",
        plain=pipe("parts@0", "wall@0"),
        edited=(
            "EditBasicPipe", {"basic_pipe": "plain@0", "model": "apply@0", "positive": "apply@1"}
        ),
        out=("FromBasicPipe", {"basic_pipe": "edited@0"}),
    ),
    "Impact RegionalSampler": REGIONAL,
}  # fmt: skip
PERCENT = {"start_at": 0.0, "end_at": 1.0}


def thing(name: str) -> tuple[str, dict[str, str]]:
    return "Thing", {"name": name}


def ipadapter(model: str, **changed: Any) -> tuple[str, dict[str, Any]]:
    inputs = {
        "model": model, "ipadapter": "adapter@0", "image": "face@0", "clip_vision": "vision@0",
        "weight": 0.8, "weight_type": "linear", "combine_embeds": "concat",
        "embeds_scaling": "V only", **PERCENT,
    }  # fmt: skip
    return "IPAdapterAdvanced", {**inputs, **changed}


IPADAPTER = {"face": thing("pixels"), "adapter": thing("ipadapter"), "vision": thing("vision")}
INSTANTID = {
    "face": thing("pixels"), "instantid": thing("instantid"), "control": thing("control"),
    "finder": ("InstantIDFaceAnalysis", {"provider": "CPU"}),
    "adapted": (
        "ApplyInstantID",
        {
            "instantid": "instantid@0", "insightface": "finder@0", "control_net": "control@0",
            "image": "face@0", "model": "apply@0", "positive": "apply@1", "negative": "negative@0",
            "weight": 0.8, **PERCENT,
        },
    ),
}  # fmt: skip


def pulid(model: str, method: str) -> Graph:
    inputs = {
        "model": model, "pulid": "pulid@0", "eva_clip": "eva@0", "face_analysis": "finder@0",
        "image": "face@0", "method": method, "weight": 0.8, **PERCENT,
    }  # fmt: skip
    finder = ("PulidInsightFaceLoader", {"provider": "CPU"})
    parts = {"face": thing("pixels"), "pulid": thing("pulid"), "eva": thing("eva")}
    return {**parts, "finder": finder, "adapted": ("ApplyPulid", inputs)}


SDXL_ROWS: dict[str, Graph] = {
    "SDXL: no other pack": sampled("apply@0", "apply@1"),
    "SDXL: IPAdapter Advanced, after ours": sampled(
        "adapted@0", "apply@1", **IPADAPTER, adapted=ipadapter("apply@0")
    ),
    "SDXL: IPAdapter Advanced, K+V, a mask": sampled(
        "adapted@0",
        "apply@1",
        **IPADAPTER,
        adapted=ipadapter("apply@0", embeds_scaling="K+V", attn_mask="mask@0"),
    ),
    "SDXL: IPAdapter Advanced, style transfer": sampled(
        "adapted@0",
        "apply@1",
        **IPADAPTER,
        adapted=ipadapter("apply@0", weight_type="style transfer"),
    ),
    "SDXL: InstantID, after ours": sampled("adapted@0", "adapted@1", "adapted@2", **INSTANTID),
    "SDXL: PuLID, after ours": sampled("adapted@0", "apply@1", **pulid("apply@0", "fidelity")),
    "SDXL: IPAdapter Advanced, before ours": sampled(
        **IPADAPTER, adapted=ipadapter("parts@0"), apply=applied("adapted@0")
    ),
    "SDXL: PuLID, before ours": sampled(**pulid("parts@0", "neutral"), apply=applied("adapted@0")),
    "SDXL: InstantID and IPAdapter, after ours": sampled(
        "both@0",
        "adapted@1",
        "adapted@2",
        **IPADAPTER,
        **{name: part for name, part in INSTANTID.items() if name != "face"},
        both=ipadapter("adapted@0", image="face@0"),
    ),
    "SDXL: PuLID, style": sampled("adapted@0", "apply@1", **pulid("apply@0", "style")),
}
SDXL_ROWS |= {f"SDXL: {name}": row for name, row in ROWS.items() if "Attention Couple" in name}
