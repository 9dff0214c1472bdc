"""The CUDA path on a machine without a card: every forward of ours under PyTorch's fake tensors.

A fake tensor has a device, a dtype and a shape, and no numbers: any mixing of devices raises, and
so does any number that is read back, which would wait for the card.
"""

from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import comfy.supported_models
import pytest
import seeded
import torch
from sefi_pack.nodes.host.apply.sampling import KEY, stage_model_call
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.train.backbone import HostBackbone, plain_attention
from sefi_pack.sefi_core.contexts import StagedContext
from sefi_pack.sefi_core.predict import Source, predict
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import Subject, draw, losses_of
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
F8 = torch.float8_e4m3fn
STORED = [  # weights, and what the host computes in
    (torch.float32, torch.float32), (torch.float16, torch.float16),
    (torch.bfloat16, torch.bfloat16), (F8, torch.float16), (F8, torch.bfloat16),
    (torch.float16, torch.float32),
]  # fmt: skip
STEPS = [(1, "all tokens", False), (3, "placeholder only", True), (1, "off", False)]


class InOperators(TorchFunctionMode):
    """Spells what Python asks CUDA itself for, which is not there, in operators."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is torch.Tensor.__getitem__:
            return part_of(*arguments)
        if function is torch.Tensor.__setitem__:
            tensor, index, value = arguments
            return torch.ops.aten.copy_(part_of(tensor, index), value)
        if function is torch.Tensor.contiguous:
            return torch.clone(arguments[0], memory_format=torch.contiguous_format)
        return function(*arguments, **(options or {}))


def part_of(tensor, index):
    """Returns tensor[index]; an index of tensors stands alone, and so do lists side by side."""
    index = index if isinstance(index, tuple) else (index,)
    if all(isinstance(one, list) for one in index):
        places = [torch.tensor(one, device=tensor.device) for one in index]
        return torch.ops.aten.index(tensor, places)
    dim = 0
    for at, one in enumerate(index):
        if one is Ellipsis:
            dim = tensor.ndim - sum(i is not None for i in index[at + 1 :])
        elif one is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(one, int):
            tensor = torch.select(tensor, dim, one)
        elif isinstance(one, slice):
            tensor = torch.ops.aten.slice(tensor, dim, one.start, one.stop, one.step or 1)
            dim += 1
        else:
            tensor = torch.ops.aten.index(tensor, [*[None] * dim, one])
            dim += one.ndim
    return tensor


def on_card(module, dtype=None):
    """Gives every weight a fake tensor on the card, floating ones in `dtype`."""
    for part in module.modules():
        for slots in (part._parameters, part._buffers):
            for name, tensor in slots.items():
                if tensor is not None:
                    kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
                    fake = torch.empty(tensor.shape, dtype=kind, device=CUDA)
                    is_weight = slots is part._parameters
                    slots[name] = torch.nn.Parameter(fake, False) if is_weight else fake
    return module


@pytest.fixture(params=STORED, ids=lambda pair: f"{pair[0]} in {pair[1]}".replace("torch.", ""))
def card(request, monkeypatch):
    """The models on a fake card: SimpleNamespace(model, encoder, computed)."""
    stored, computed = request.param
    with torch.inference_mode(False), torch.no_grad():
        if stored != computed:
            monkeypatch.setattr(comfy.supported_models.SD15, "manual_cast_dtype", computed)
        monkeypatch.setattr(seeded, "seed_weights", lambda module, seed: module)
        model = seeded.tiny_model(dtype=stored)
        clip = seeded.tiny_clip()
        with FakeTensorMode(allow_non_fake_inputs=False), InOperators():
            # The schedule stays in float32, as the host has it.
            on_card(model.model.diffusion_model, stored)
            on_card(model.model.model_sampling)
            on_card(clip.cond_stage_model, None if stored == F8 else stored)
            model.load_device = CUDA
            encoder = HostTextEncoder(clip, "person")
            yield SimpleNamespace(model=model, encoder=encoder, computed=computed)


def is_on_card(tensor, dtype):
    return tensor.device == CUDA and tensor.dtype == dtype


def fake_learner(config):
    """A learner whose modules are made on the CPU and then put on the card; fake weights cannot be
    moved.
    """
    with unset_fake_temporarily():
        learner = Learner({"clip_l": torch.linspace(-1.0, 1.0, 64)}, config)
    on_card(learner.generators)
    learner.rng = None  # draws without numbers
    return learner


def test_a_training_step(card):
    tokens = {name: token.to(CUDA) for name, token in card.encoder.class_tokens.items()}
    assert all(is_on_card(token, torch.float32) for token in tokens.values())
    pool = LatentPool(torch.empty(4, 4, 8, 8, device=CUDA), torch.empty(4, 1, 8, 8, device=CUDA))
    reference = card.encoder.reference(3)
    assert is_on_card(reference, torch.float32)
    backbone = HostBackbone(card.model, reference, pool.latents[:1], card.computed)
    for batch, scope, masked in STEPS:
        config = TrainingConfig(batch_size=batch, attention_loss=scope, masked_loss=masked, steps=4)
        learner = fake_learner(config)
        assert all(is_on_card(table, torch.float32) for table in learner().values())
        token_mask = torch.empty(77)  # a real encoder's, whose numbers are known on the CPU
        known = SimpleNamespace(any=lambda scope=scope: scope != "off", to=token_mask.to)
        batch_of = [Subject(card.encoder, pool, learner)]
        samples, rows = draw(backbone, batch_of)
        source = [Source(card.encoder, learner())]
        prediction = predict(backbone, source, samples, rows, with_maps=scope != "off")
        (terms,) = losses_of(batch_of, prediction, samples, [known])
        for loss in (terms.denoising, terms.attention, terms.total):
            assert is_on_card(loss, torch.float32) and loss.shape == ()


def test_a_model_call_with_an_identity(card):
    """The wrapper and the patch, through the host's own apply_model."""
    keys, values, reference = (torch.empty(n, 77, 64) for n in (5, 5, 1))
    contexts = StagedContext(keys, values, reference, (1000, 800, 600, 400, 200, 0))
    contexts = replace(contexts.map(lambda x: x.to(CUDA)), reference=reference.to(CUDA))
    ours, other = uuid4(), uuid4()
    options = {
        KEY: ({ours: contexts}, set()),
        "uuids": [other, ours],
        "cond_or_uncond": [1, 0],
        "sigmas": torch.empty(2, device=CUDA),
        "optimized_attention_override": plain_attention,  # the host's own asks for free memory
    }

    class Executor:
        class_obj = card.model.model

        def __call__(self, x, t, c_concat, c_crossattn, control, options, **kwargs):
            assert is_on_card(c_crossattn, torch.float32)
            return card.model.model._apply_model(
                x, t, c_concat, c_crossattn, control, options, **kwargs
            )

    x, t = torch.empty(4, 4, 8, 8, device=CUDA), torch.empty(4, device=CUDA)
    denoised = stage_model_call(
        Executor(), x, t, None, torch.empty(4, 77, 64, device=CUDA), None, options
    )
    assert is_on_card(denoised, torch.float32) and denoised.shape == x.shape


def test_a_tensor_on_another_device_is_found(card):
    """The net has meshes: a context left on the CPU raises."""
    backbone = HostBackbone(
        card.model, card.encoder.reference(), torch.empty(1, 4, 8, 8, device=CUDA), card.computed
    )
    timesteps = torch.empty(1, dtype=torch.long, device=CUDA)
    with pytest.raises(RuntimeError, match="device"):
        latents = torch.empty(1, 4, 8, 8, device=CUDA)
        backbone.run(latents, timesteps, torch.empty(1, 77, 64), {}, timesteps)
