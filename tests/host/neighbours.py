"""Every node that artists chain with ours, as small graphs of the host's own nodes.

A graph takes a Scene and returns the sampled latent; whoever stands in the scene's prompt, the
graph is the same.
"""

__all__ = ["NEIGHBOURS", "Neighbour"]

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import comfy.cldm.cldm
import comfy.controlnet
import comfy.gligen
import comfy_extras.nodes_context_windows as windows
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_hypernetwork as hypernetwork
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_merging as merging
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_perpneg as perpneg
import comfy_extras.nodes_sag as sag
import comfy_extras.nodes_tomesd as tomesd
import comfy_extras.nodes_torch_compile as torch_compile
import seeded
import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.model_patcher import ModelPatcher
from scene import STEPS, Scene
from torch import Tensor, nn

import nodes

Graph = Callable[[Scene], Tensor]
Change = Callable[[Scene, object], object]
Base = Callable[[str], ModelPatcher]


@dataclass(frozen=True)
class Neighbour:
    """A row of the table.

    Attributes:
        graphs: All must earn the same cell: a model's neighbour before and after ours.
        without: The same graph without the neighbour, whose picture must be another; None if there
            is no such graph or the neighbour leaves the picture as it is.
    """

    graphs: tuple[Graph, ...]
    without: Graph | None = None


def on_conditioning(change: Change) -> Neighbour:
    """A node that takes a CONDITIONING and returns one."""

    def graph(scene: Scene) -> Tensor:
        model, positive = scene.prompt()
        return scene.ksample(model, change(scene, positive))

    return Neighbour((graph,), alone)


def on_clip(change: Change) -> Neighbour:
    """A node that takes a CLIP and returns one, before ours."""

    def graph(scene: Scene) -> Tensor:
        clip = change(scene, scene.clip)
        return scene.ksample(*scene.prompt(clip=clip), scene.plain(clip=clip))

    return Neighbour((graph,), alone)


def on_model(
    change: Change, silent: bool = False, base: Base | None = None, **sampling
) -> Neighbour:
    """A node that takes a MODEL and returns one, before ours and after it.

    Arguments:
        silent: It leaves the plain picture as it is.
        base: Makes the model from a family's name; None for the scene's own.
    """

    def sample(scene: Scene, model: ModelPatcher, positive: list) -> Tensor:
        chosen = {k: v(scene) if callable(v) else v for k, v in sampling.items()}
        return scene.ksample(model, positive, **chosen)

    def model_of(scene: Scene) -> ModelPatcher:
        return base(scene.family) if base else scene.model

    def before(scene: Scene) -> Tensor:
        return sample(scene, *scene.prompt(model=change(scene, model_of(scene))))

    def after(scene: Scene) -> Tensor:
        model, positive = scene.prompt(model=model_of(scene))
        return sample(scene, change(scene, model), positive)

    def without(scene: Scene) -> Tensor:
        return sample(scene, *scene.prompt(model=model_of(scene)))

    return Neighbour((before, after), None if silent else without)


def alone(scene: Scene) -> Tensor:
    """The graph that most neighbours stand in, without them."""
    return scene.ksample(*scene.prompt())


def seeded_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(scene: Scene) -> dict:
    return {"samples": seeded_tensor(5, 1, 4, 8, 8)}


def half_mask() -> Tensor:
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1.0
    return mask


# What is done to the conditioning.


def beside_a_wall(place: Callable[[list], list]) -> Change:
    """The prompt in a part of the picture, a wall everywhere."""
    return lambda scene, c: nodes.ConditioningCombine().combine(place(c), scene.plain("a wall"))[0]


def control_net(scene: Scene, positive: list) -> tuple[list, list]:
    config = dict(scene.model.model.model_config.unet_config)
    config = {
        k: v for k, v in config.items() if k not in ("out_channels", "use_temporal_attention")
    }
    net = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, device="cpu", operations=comfy.ops.disable_weight_init
    )
    control = comfy.controlnet.ControlNet(
        seeded.seed_weights(net, 6), load_device=torch.device("cpu")
    )
    hint = seeded_tensor(7, 1, 64, 64, 3).sigmoid()
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        positive, scene.plain(), control, hint, 0.8, 0.0, 0.9
    )


def with_control_net(scene: Scene) -> Tensor:
    model, positive = scene.prompt()
    return scene.ksample(model, *control_net(scene, positive))


def gligen_box(scene: Scene, positive: list) -> list:
    _, pooled = scene.clip.encode_from_tokens(
        scene.clip.tokenize("hat"), return_pooled="unprojected"
    )
    width = pooled.shape[-1]
    unet = scene.model.model.diffusion_model
    layers = [
        comfy.gligen.GatedSelfAttentionDense(block.attn1.to_q.weight.shape[1], width, 2, 16)
        for transformer in unet.modules()
        if isinstance(transformer, SpatialTransformer)
        for block in transformer.transformer_blocks[:1]
    ]
    net = comfy.gligen.Gligen(layers, comfy.gligen.PositionNet(width, width), width)
    for parameter in seeded.seed_weights(net, 8).parameters():
        if parameter.ndim == 0:
            parameter.fill_(0.5)
    cpu = torch.device("cpu")
    patcher = ModelPatcher(net, load_device=cpu, offload_device=cpu)
    return nodes.GLIGENTextBoxApply().append(
        positive, scene.clip, patcher, "a hat", 32, 32, 16, 16
    )[0]


def lora_schedule(scene: Scene) -> object:
    """Hooks of a LoRA that acts in full until the middle, then less."""
    hook = hooks.CreateHookLora().create_hook(scene.lora(), 1.0, 1.0)[0]
    frames = hooks.CreateHookKeyframe().create_hook_keyframe(1.0, 0.0)[0]
    frames = hooks.CreateHookKeyframe().create_hook_keyframe(0.3, 0.5, frames)[0]
    return hooks.SetHookKeyframes().set_hook_keyframes(hook, frames)[0]


def with_pair_props(scene: Scene) -> Tensor:
    """A masked pair with a LoRA of its own, over a pair everywhere."""
    model, positive = scene.prompt()
    pair = hooks.PairConditioningSetPropertiesAndCombine().set_properties(
        scene.plain("a wall"),
        scene.plain(),
        positive,
        scene.plain("ugly"),
        0.9,
        "default",
        mask=half_mask(),
        hooks=lora_schedule(scene),
        timesteps=(0.0, 0.9),
    )
    return scene.ksample(model, *pair)


def with_default_pair(scene: Scene) -> Tensor:
    """The prompt wherever no other one is."""
    model, positive = scene.prompt()
    masked = nodes.ConditioningSetMask().append(scene.plain("a wall"), half_mask(), "default", 1.0)
    pair = hooks.PairConditioningSetDefaultAndCombine().set_default_and_combine(
        masked[0], scene.plain(), positive, scene.plain()
    )
    return scene.ksample(model, *pair)


def hooked_prompt(scene: Scene, positive: list) -> list:
    return hooks.ConditioningSetProperties().set_properties(
        positive, 1.0, "default", hooks=lora_schedule(scene)
    )[0]


def scheduled_clip(scene: Scene, clip: object) -> object:
    return hooks.SetClipHooks().apply_hooks(clip, True, True, lora_schedule(scene))[0]


def lora_on_clip(scene: Scene, clip: object) -> object:
    return nodes.LoraLoader().load_lora(None, clip, scene.lora(), 0.0, 1.0)[1]


def with_several_lengths(scene: Scene) -> Tensor:
    """Prompts of one, two and three chunks, which the host repeats to a common length."""
    model, positive = scene.prompt()
    longer = [scene.plain(", ".join(["word of a long prompt"] * n)) for n in (20, 40)]
    combine = nodes.ConditioningCombine().combine
    return scene.ksample(model, combine(combine(positive, longer[0])[0], longer[1])[0])


# What is done to the model.


def lora_on_model(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    return nodes.LoraLoaderModelOnly().load_lora_model_only(model, scene.lora(), 1.0)[0]


def merged(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    return merging.ModelMergeSimple().merge(model, one_layer(scene.family, seed=9), 0.6)[0]


@cache
def one_layer(family: str, **changed) -> ModelPatcher:
    """A UNet of one cross-attention layer, for what takes its time with each."""
    small = {
        "channel_mult": [1],
        "num_res_blocks": [1],
        "transformer_depth": [1],
        "transformer_depth_output": [0, 0],
        "transformer_depth_middle": -1,
    }
    return seeded.FAMILIES[family].model(**small, **changed)


@cache
def inpainting_model(family: str) -> ModelPatcher:
    return seeded.FAMILIES[family].model(in_channels=9)


class ImagePrompt:
    """What IPAdapter and its like add in one cross-attention layer: the same queries attend to
    tokens of a picture as well, softmax(q k_ip) v_ip on top; other tokens for negative prompts.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        heads, chunks = extra_options["n_heads"], extra_options["cond_or_uncond"]
        out = optimized_attention(q, k, v, heads)
        rows = len(q) // len(chunks)
        tokens = [seeded_tensor(20 + chunk, 1, 4, k.shape[-1]) for chunk in chunks]
        tokens = torch.cat([token.expand(rows, -1, -1) for token in tokens])
        return out + 0.5 * optimized_attention(q, tokens, tokens.flip(1), heads)

    def to(self, *args) -> "ImagePrompt":
        return self


def image_prompt(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    """Registers under the keys of blocks, as those packs do; ("middle", 1) is among them, though
    this host has no such block.
    """
    patched = model.clone()
    unet = model.model.diffusion_model
    for block, count in (("input", len(unet.input_blocks)), ("output", len(unet.output_blocks))):
        for number in range(count):
            patched.set_model_attn2_replace(ImagePrompt(), block, number)
            patched.set_model_attn2_replace(ImagePrompt(), block, number, 0)
    for number in (0, 1):
        patched.set_model_attn2_replace(ImagePrompt(), "middle", number)
    return patched


def more_tokens(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    """Appends four tokens to K's and V's contexts in every cross-attention layer."""

    def append(n: Tensor, context: Tensor, value: Tensor, extra_options: dict) -> tuple:
        tokens = seeded_tensor(11, 1, 4, context.shape[-1]).expand(len(context), -1, -1)
        return n, torch.cat([context, tokens], 1), torch.cat([value, tokens.flip(1)], 1)

    patched = model.clone()
    patched.set_model_attn2_patch(append)
    return patched


def hypernet(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    path = scene.file("hypernetworks", "pt")
    unet = scene.model.model.diffusion_model
    if not path.is_file():
        width = unet.input_blocks[-1][1].transformer_blocks[0].attn2.to_k.weight.shape[1]
        torch.manual_seed(12)
        layers = [nn.Sequential(nn.Linear(width, 2 * width), nn.Linear(2 * width, width))] * 2
        torch.save({width: [layer.state_dict() for layer in layers]}, path)
    return hypernetwork.HypernetworkLoader.execute(model, path.name, 0.5)[0]


def tiles(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    """Calls the model on the two halves of the latents in one batch, tile after tile, and repeats
    what goes with them, as Tiled Diffusion does.
    """

    def wrapper(apply: Callable[..., Tensor], call: dict) -> Tensor:
        x = torch.cat(call["input"].chunk(2, dim=-1))
        twice = {
            k: torch.cat([v] * 2) if isinstance(v, Tensor) else v for k, v in call["c"].items()
        }
        out = apply(x, torch.cat([call["timestep"]] * 2), **twice)
        return torch.cat(out.chunk(2), dim=-1)

    patched = model.clone()
    patched.set_model_unet_function_wrapper(wrapper)
    return patched


def noisy_prompt(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    """Adds noise to the prompt's rows at each step and scales them, as CADS does."""

    def wrapper(apply: Callable[..., Tensor], call: dict) -> Tensor:
        rows = call["c"]["c_crossattn"]
        noise = torch.randn(rows.shape).to(rows)
        c = {**call["c"], "c_crossattn": 0.9 * rows + 0.25 * noise}
        return apply(call["input"], call["timestep"], **c)

    patched = model.clone()
    patched.set_model_unet_function_wrapper(wrapper)
    return patched


def model_sampling(kind: str, zero_snr: bool) -> Change:
    return lambda scene, model: advanced.ModelSamplingDiscrete().patch(model, kind, zero_snr)[0]


def continuous_edm(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    return advanced.ModelSamplingContinuousEDM().patch(model, "edm", 120.0, 0.002)[0]


def compiled(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    return torch_compile.TorchCompileModel.execute(model, "eager")[0]


def flow(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    return advanced.ModelSamplingSD3().patch(model, 3.0)[0]


def context_windows(scene: Scene, model: ModelPatcher) -> ModelPatcher:
    """Windows over a batch; this host takes one of as many latents as there are sigmas alone."""
    execute = windows.ContextWindowsManualNode.execute
    asked = {"freenoise": False} if "freenoise" in inspect.signature(execute).parameters else {}
    return execute(model, 2, 1, "standard_static", 1, False, "pyramid", 0, **asked)[0]


# What samples.


def perp_neg(scene: Scene) -> Tensor:
    model, positive = scene.prompt()
    model = scene.watched(model)
    guider = perpneg.PerpNegGuider.execute(
        model, positive, scene.plain(), scene.plain(""), 4.0, 1.0
    )[0]
    return scene.advanced(guider, scene.schedule(model))["samples"]


def dual_cfg(style: str, first: bool) -> Graph:
    def graph(scene: Scene) -> Tensor:
        scene = scene.listed(2 if first else 1)
        model, positive = scene.prompt()
        model = scene.watched(model)
        pair = [positive, scene.plain("a wall")]
        pair = pair if first else pair[::-1]
        guider = custom.DualCFGGuider.execute(model, *pair, scene.plain(), 4.0, 3.0, style)[0]
        return scene.advanced(guider, scene.schedule(model))["samples"]

    return graph


def split_sigmas(scene: Scene) -> Tensor:
    """One guider samples the first steps, then the rest."""
    model, positive = scene.prompt()
    model = scene.watched(model)
    guider = custom.CFGGuider.execute(model, positive, scene.plain(), 4.0)[0]
    high, low = custom.SplitSigmas.execute(scene.schedule(model), 1)
    half = scene.advanced(guider, high)
    return scene.advanced(guider, low, half, custom.DisableNoise.execute()[0])["samples"]


def sampled_on(latent: Callable[[Scene], dict], **sampling) -> Neighbour:
    graph = lambda scene: scene.ksample(*scene.prompt(), latent=latent(scene), **sampling)  # noqa: E731
    return Neighbour((graph,), alone)


def inpaint(base: Base | None = None) -> Graph:
    """Inpaint Model Conditioning on the scene's UNet of 4 channels, or on another."""

    def graph(scene: Scene) -> Tensor:
        model, positive = scene.prompt(model=base and base(scene.family))
        pixels = seeded_tensor(13, 1, 64, 64, 3).sigmoid()
        positive, negative, latent = nodes.InpaintModelConditioning().encode(
            positive, scene.plain(), pixels, scene.vae, half_mask(), True
        )
        return scene.ksample(model, positive, negative, latent)

    return graph


def masked_latent(scene: Scene) -> dict:
    return nodes.SetLatentNoiseMask().set_mask(picture(scene), half_mask())[0]


NEIGHBOURS: dict[str, Neighbour] = {
    "Conditioning (Combine)": on_conditioning(
        lambda s, c: nodes.ConditioningCombine().combine(c, s.plain("a wall"))[0]
    ),
    "Conditioning (Combine) of prompts of different lengths": Neighbour((with_several_lengths,)),
    "Conditioning (Concat), ours as conditioning_to": on_conditioning(
        lambda s, c: nodes.ConditioningConcat().concat(c, s.plain("a red hat"))[0]
    ),
    "Conditioning (Average), ours as conditioning_to": on_conditioning(
        lambda s, c: nodes.ConditioningAverage().addWeighted(c, s.plain("a red hat"), 0.6)[0]
    ),
    "Conditioning (Set Area)": on_conditioning(
        beside_a_wall(lambda c: nodes.ConditioningSetArea().append(c, 32, 32, 16, 16, 1.0)[0])
    ),
    "Conditioning (Set Area with Percentage)": on_conditioning(
        beside_a_wall(
            lambda c: nodes.ConditioningSetAreaPercentage().append(c, 0.5, 0.5, 0.25, 0.25, 1.0)[0]
        )
    ),
    "Conditioning (Set Mask)": on_conditioning(
        beside_a_wall(
            lambda c: nodes.ConditioningSetMask().append(c, half_mask(), "mask bounds", 1.0)[0]
        )
    ),
    "ConditioningSetTimestepRange": on_conditioning(
        beside_a_wall(lambda c: nodes.ConditioningSetTimestepRange().set_range(c, 0.0, 0.6)[0])
    ),
    "ConditioningZeroOut": on_conditioning(lambda s, c: nodes.ConditioningZeroOut().zero_out(c)[0]),
    "Apply ControlNet": Neighbour((with_control_net,), alone),
    "GLIGENTextBoxApply": on_conditioning(gligen_box),
    "Cond Pair Set Props Combine (mask, hooks, timesteps)": Neighbour((with_pair_props,)),
    "Cond Pair Set Default Combine": Neighbour((with_default_pair,)),
    "LoRA hook schedule on the conditioning (Cond Set Props)": on_conditioning(hooked_prompt),
    "LoRA hook schedule on the CLIP (Set CLIP Hooks)": on_clip(scheduled_clip),
    "CLIP Set Last Layer": on_clip(
        lambda s, clip: nodes.CLIPSetLastLayer().set_last_layer(clip, -3)[0]
    ),
    "LoRA on the CLIP (Load LoRA)": on_clip(lora_on_clip),
    "LoRA on the model (Load LoRA)": on_model(lora_on_model),
    "ModelMergeSimple, ours as model1": on_model(merged, base=one_layer),
    "FreeU_V2": on_model(lambda s, m: freelunch.FreeU_V2().patch(m, 1.3, 1.4, 0.9, 0.2)[0]),
    "HyperTile": on_model(
        lambda s, m: hypertile.HyperTile.execute(m, 32, 2, 1, False)[0],
        latent=lambda s: s.latent(side=128),
    ),
    "TomePatchModel": on_model(lambda s, m: tomesd.TomePatchModel.execute(m, 0.4)[0]),
    "PerturbedAttentionGuidance": on_model(
        lambda s, m: pag.PerturbedAttentionGuidance.execute(m, 3.0)[0]
    ),
    "Self-Attention Guidance": on_model(
        lambda s, m: sag.SelfAttentionGuidance.execute(m, 0.5, 2.0)[0]
    ),
    "RescaleCFG": on_model(lambda s, m: advanced.RescaleCFG().patch(m, 0.7)[0]),
    "PerpNegGuider": Neighbour((perp_neg,)),
    "DualCFGGuider": Neighbour(
        (dual_cfg("regular", True), dual_cfg("nested", True), dual_cfg("regular", False))
    ),
    "TorchCompileModel (eager backend)": on_model(
        compiled, silent=True, base=one_layer, compiled=True
    ),
    "Context Windows (Manual)": on_model(
        context_windows, silent=True, latent=lambda s: s.latent(batch=STEPS + 1)
    ),
    "a model wrapper that batches tiles (as Tiled Diffusion does)": on_model(
        tiles, latent=lambda s: s.latent(batch=2)
    ),
    "a model wrapper that changes the prompt at each step (as CADS does)": on_model(noisy_prompt),
    "an attn2_replace that adds picture tokens (as IPAdapter does)": on_model(image_prompt),
    "an attn2_patch that appends tokens": on_model(more_tokens),
    "HypernetworkLoader": on_model(hypernet),
    "ModelSamplingDiscrete (lcm)": on_model(model_sampling("lcm", False), sampler="lcm"),
    "ModelSamplingDiscrete (v_prediction, zsnr)": on_model(model_sampling("v_prediction", True)),
    "ModelSamplingContinuousEDM (edm)": on_model(continuous_edm),
    "ModelSamplingSD3 (flow)": on_model(flow),
    "SplitSigmas, SamplerCustomAdvanced": Neighbour((split_sigmas,)),
    "img2img (denoise 0.5)": sampled_on(picture, denoise=0.5),
    "a batch of 3 latents": sampled_on(lambda s: s.latent(batch=3)),
    "Set Latent Noise Mask": sampled_on(masked_latent, denoise=0.7),
    "InpaintModelConditioning": Neighbour((inpaint(),)),
    "InpaintModelConditioning on an inpainting UNet": Neighbour((inpaint(inpainting_model),)),
}
