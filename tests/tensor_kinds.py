"""One small UNet with its weights in every kind of tensor that hosts and loaders make."""

__all__ = ["KINDS", "Blocks", "made_of"]

import json
from collections.abc import Callable

import comfy.model_base
import comfy.ops
import comfy.quant_ops as quant_ops
import comfy.supported_models
import seeded
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

FORMATS = [f for f in ("float8_e4m3fn", "int8_tensorwise", "mxfp8") if f in quant_ops.QUANT_ALGOS]
LAYERS = "transformer_blocks"  # whose matrices are quantised


class Blocks(torch.Tensor):
    """Bytes of a format that torch does not know, as GGUF's: it copies and detaches to itself."""

    def clone(self, *_, **__):
        return self

    def detach(self):
        return self

    def to(self, *given, **named):
        return super().to(*given, **named).as_subclass(Blocks)


class BlockOps(comfy.ops.manual_cast):
    """Layers that keep bf16 bits, or plain numbers, as Blocks; their state dict has meta tensors,
    to be counted.
    """

    class Linear(comfy.ops.manual_cast.Linear):
        def pack(self, plain):
            bits = self.weight.data if plain else self.weight.to(torch.bfloat16).view(torch.uint8)
            self.weight = nn.Parameter(bits.detach().as_subclass(Blocks), requires_grad=False)

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            destination[f"{prefix}weight"] = torch.empty(0, device="meta")

        def forward_comfy_cast_weights(self, x):
            bias = None if self.bias is None else self.bias.to(x)
            if self.weight.is_floating_point():
                return nn.functional.linear(x, self.weight.to(x), bias).as_subclass(torch.Tensor)
            bits = self.weight.as_subclass(torch.Tensor).view(torch.bfloat16)
            return nn.functional.linear(x, bits.to(x), bias)


def tiny_with(operations: type, state: dict) -> ModelPatcher:
    """Returns the small UNet of other layers, with weights as their files have them."""
    config = comfy.supported_models.SD15({**seeded.TINY_UNET})
    config.unet_config["dtype"] = torch.float32
    config.custom_operations = operations
    base = comfy.model_base.BaseModel(config, device="cpu")
    base.diffusion_model.load_state_dict(state, strict=False)
    cpu = torch.device("cpu")
    return ModelPatcher(base, load_device=cpu, offload_device=cpu)


def weights_of(model: ModelPatcher) -> dict:
    return {n: w.detach().clone() for n, w in model.model.diffusion_model.state_dict().items()}


def matrices(state: dict) -> list[str]:
    return [
        name.removesuffix(".weight")
        for name, weight in state.items()
        if LAYERS in name and weight.ndim == 2 and name.endswith(".weight")
    ]


def quantised(kind: str) -> ModelPatcher:
    """Returns the UNet with the host's own quantised tensors, as its loader makes them."""
    state, layers = weights_of(seeded.tiny_model()), {}
    layout = quant_ops.QUANT_ALGOS[kind]["comfy_tensor_layout"]
    for name in matrices(state):
        layers[name] = {"format": kind}
        made = quant_ops.QuantizedTensor.from_float(state.pop(f"{name}.weight"), layout)
        if hasattr(made, "state_dict"):
            state |= made.state_dict(f"{name}.weight")
            note = json.dumps(layers[name]).encode()
            state[f"{name}.comfy_quant"] = torch.frombuffer(bytearray(note), dtype=torch.uint8)
        else:
            state[f"{name}.weight"] = made._qdata
            state[f"{name}.weight_scale"] = made._layout_params["scale"]
    operations = comfy.ops.mixed_precision_ops(layers, torch.float32, full_precision_mm=True)
    return tiny_with(operations, state)


def packed(plain: bool) -> ModelPatcher:
    model = tiny_with(BlockOps, weights_of(seeded.tiny_model()))
    for module in model.model.diffusion_model.modules():
        if isinstance(module, BlockOps.Linear):
            module.pack(plain)
    return model


def outside_inference() -> ModelPatcher:
    with torch.inference_mode(False):
        return seeded.tiny_model()


def stored_in(dtype: torch.dtype) -> Callable[[], ModelPatcher]:
    def make() -> ModelPatcher:
        model = tiny_with(comfy.ops.manual_cast, weights_of(seeded.tiny_model()))
        for weight in model.model.diffusion_model.parameters():
            weight.data = weight.data.to(dtype)
        return model

    return make


def half_loaded() -> ModelPatcher:
    """Returns the UNet as a full card leaves it: a part is loaded, a part waits."""
    model = seeded.tiny_model()
    model.load(model.load_device, lowvram_model_memory=model.model_size() // 2)
    return model


KINDS: dict[str, Callable[[], ModelPatcher]] = {
    "plain": outside_inference,
    "inference": seeded.tiny_model,
    "fp16": stored_in(torch.float16),
    "fp8": stored_in(torch.float8_e4m3fn),
    "blocks": lambda: packed(False),
    "plain blocks": lambda: packed(True),
    "offloaded": half_loaded,
    **{name: lambda name=name: quantised(name) for name in FORMATS},
}


def made_of(patcher: ModelPatcher) -> dict[str, tuple]:
    """Returns by name what every weight is made of: kind, flag, dtype and bytes."""
    return {name: atoms(w) for name, w in patcher.model.diffusion_model.named_parameters()}


def atoms(tensor: torch.Tensor) -> tuple:
    if hasattr(tensor, "__tensor_flatten__"):
        return type(tensor), *(atoms(getattr(tensor, n)) for n in tensor.__tensor_flatten__()[0])
    plain = tensor.as_subclass(torch.Tensor)
    data = bytes(plain.cpu().reshape(-1).view(torch.uint8).numpy())
    return type(tensor), tensor.requires_grad, plain.dtype, data
