"""Which rows of a model call read an identity: those of its own conditioning, and no others.

The host batches, splits, copies and repeats conditionings as it likes. Contexts that hold numbers
show what reached cross-attention, and for which conditioning.
"""

import gc
from collections import Counter
from unittest import mock

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_model_advanced as advanced
import pytest
import torch
from comfy_extras.nodes_cfg import CFGNorm, CFGZeroStar
from comfy_extras.nodes_eps import EpsilonScaling
from comfy_extras.nodes_fresca import FreSca
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_mahiro import Mahiro
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_tcfg import TCFG
from comfy_extras.nodes_tomesd import TomePatchModel
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sefi_pack.nodes.host.apply.sampling import apply_identity, with_staged_attention
from sefi_pack.sefi_core.contexts import StagedContext
from sefi_pack.sefi_core.identity.identity import Identity

import nodes

EDGES = (1000, 600, 300, 0)
KEY, VALUE = 1000.0, 2000.0


def entry_of(number, carries, length, area):
    """Returns a conditioning entry that is `number` all over; its identity's keys are
    1000 + 10 * number + stage, its values 2000 + 10 * number + stage."""
    plain = torch.full((1, length, 64), float(number))
    extras = {}
    if carries:
        stages = torch.arange(len(EDGES) - 1.0).view(-1, 1, 1).expand(-1, length, 64)
        extras["sefi"] = StagedContext(
            KEY + 10 * number + stages, VALUE + 10 * number + stages, plain, EDGES
        )
    entry = [[plain, extras]]
    return nodes.ConditioningSetArea().append(entry, *area, 1.0)[0] if area else entry


class Rig:
    """One model, plain and with our wrappers, under watch; `fits` is what the host believes about
    its memory, `seen` what reached cross-attention. The clones live as long as the rig: the host
    searches for the model of every clone that is gone, at each load.
    """

    def __init__(self, model):
        self.sampling = model.model.model_sampling
        self.fits, self.seen = 99, []
        self.plain, self.applied = (
            self.watched(clone) for clone in (model.clone(), with_staged_attention(model))
        )

    def watched(self, clone):
        wrappers = comfy.patcher_extension.WrappersMP
        clone.add_wrapper(wrappers.CALC_COND_BATCH, lambda *args: self.split(*args))
        clone.set_model_attn2_patch(lambda *args: self.note(*args))
        return clone

    def split(self, executor, base, conds, x, *args):
        """Batches as if only `fits` batches fitted into the memory at once."""
        free = base.memory_required([self.fits * len(x), *x.shape[1:]]) * 1.5 + 1.0
        known = comfy.model_management.get_free_memory

        def believed(device=None, torch_free_too=False):
            return known(device, True) if torch_free_too else free

        with mock.patch.object(comfy.model_management, "get_free_memory", believed):
            return executor(base, conds, x, *args)

    def note(self, n, context, value, options):
        """Notes for every chunk of every call (timestep, list, key, value, chunks in the call)."""
        if options["block"] == ("middle", 0) and self.seen is not None:
            lists = options["cond_or_uncond"]
            timestep = int(self.sampling.timestep(options["sigmas"][:1]))
            pieces = (context.chunk(len(lists)), value.chunk(len(lists)), lists)
            for keys, values, which in zip(*pieces, strict=True):
                (key,), (value_,) = keys.unique().tolist(), values.unique().tolist()
                self.seen.append((timestep, which, key, value_, len(lists)))
        return n, context, value


@pytest.fixture(scope="module")
def rig(model):
    with torch.inference_mode():
        return Rig(model)


def sample(model, positive, negative, cfg=7.5, batch=1, size=(8, 8), steps=3):
    latent = {"samples": torch.zeros(batch, 4, *size)}
    args = (model, 3, steps, cfg, "euler", "normal", positive, negative, latent)
    return nodes.KSampler().sample(*args)[0]["samples"]


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


areas = st.sampled_from([None, None, (32, 32, 0, 0), (40, 24, 8, 16)])
entries = st.lists(
    st.tuples(st.booleans(), st.sampled_from([77, 154, 231]), areas), min_size=1, max_size=3
)


@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    entries,
    entries,
    st.integers(1, 4),
    st.tuples(st.integers(5, 11), st.integers(5, 11)),
    st.sampled_from([1.0, 7.5]),
    st.integers(1, 7),
)
def test_keys_and_values_are_those_of_the_chunks_own_conditioning(
    rig, positive, negative, batch, size, cfg, fits
):
    carriers = {}  # number -> the list it was given in: the plain model tells who reads it
    lists = []
    for which, described in enumerate((positive, negative)):
        whole = []
        for i, (carries, length, area) in enumerate(described):
            number = 1 + i + 10 * which
            whole += entry_of(number, carries, length, area)
            if carries:
                carriers[number] = which
        lists.append(whole)
    rig.fits, noted = fits, []
    for model in (rig.plain, rig.applied):
        rig.seen = []
        sample(model, *lists, cfg, batch, size)
        noted.append(rig.seen)
    plain, seen = noted
    expected = []
    for timestep, which, number, _, chunks in plain:
        key = value = number
        if carriers.get(number) == which:
            stage = sum(timestep < edge for edge in EDGES[1:-1])
            key, value = KEY + 10 * number + stage, VALUE + 10 * number + stage
        expected.append((timestep, which, key, value, chunks))
    assert Counter(seen) == Counter(expected)
    if not any(area for *_, area in (*positive, *negative)):  # an area is smaller than the picture
        assert max(chunks for *_, chunks in seen) <= fits


@pytest.mark.parametrize("fits", [1, 2])
def test_a_split_batch_changes_nothing_in_the_picture(fits, rig, model, clip, learned):
    _, conditioning = apply_identity(model, clip, learned, "a photo of V*")
    (both,) = nodes.ConditioningCombine().combine(conditioning, encode(clip, "a wall"))
    rig.fits, rig.seen = 99, None
    whole = sample(rig.applied, both, encode(clip, "blurry"))
    rig.fits = fits
    split = sample(rig.applied, both, encode(clip, "blurry"))
    assert (split - whole).norm() < 1e-3 * whole.norm()  # sums of floats in another order


# --- masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(6))
def test_outside_both_masks_the_picture_is_the_plain_graphs(step, model, clip):
    """One identity per mask, two Apply nodes in a row. Each step of a sampling is compared from the
    same latent: what one step does inside a mask, the next one spreads over the whole picture, in
    the plain graph too.
    """
    texts = ("a photo of V* smiling", "V* in a hat")
    first, second = (identity_of(seed) for seed in (1, 2))
    masks = [torch.zeros(1, 64, 64) for _ in texts]
    masks[0][..., :24] = 1.0
    masks[1][..., 40:] = 1.0
    background, negative = encode(clip, "a garden"), encode(clip, "blurry")
    latent = {"samples": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 3}

    def picture(model, conditionings):
        positive = background
        for conditioning, mask in zip(conditionings, masks, strict=True):
            placed = nodes.ConditioningSetMask().append(conditioning, mask, "default", 1.0)[0]
            (positive,) = nodes.ConditioningCombine().combine(placed, positive)
        return nodes.KSamplerAdvanced().sample(
            model, "disable", 0, 6, 7.5, "euler", "normal", positive, negative, latent, step,
            step + 1, "enable",
        )[0]["samples"]  # fmt: skip

    one, regional = apply_identity(model, clip, first, texts[0])
    both, other = apply_identity(one, clip, second, texts[1])
    applied = picture(both, [regional, other])
    plain = picture(model, [encode(clip, text.replace("V*", "person")) for text in texts])
    assert torch.equal(applied[..., 3:5], plain[..., 3:5])
    assert not torch.equal(applied[..., :3], plain[..., :3])
    assert not torch.equal(applied[..., 5:], plain[..., 5:])
    exchanged = picture(both, [other, regional])
    assert torch.equal(exchanged[..., 3:5], plain[..., 3:5])
    assert not torch.equal(exchanged, applied)


def identity_of(seed):
    generator = torch.Generator().manual_seed(seed)
    return Identity({"clip_l": torch.randn(5, 2, 1, 64, generator=generator) * 0.3})


# --- clones -----------------------------------------------------------------------------------

FOLLOWING = {
    "ModelSamplingDiscrete": lambda m: advanced.ModelSamplingDiscrete().patch(m, "eps", False)[0],
    "RescaleCFG": lambda m: advanced.RescaleCFG().patch(m, 0.7)[0],
    "FreeU_V2": lambda m: freelunch.FreeU_V2().patch(m, 1.3, 1.4, 0.9, 0.2)[0],
    "HyperTile": lambda m: HyperTile.execute(m, 256, 2, 0, False)[0],
    "TomePatchModel": lambda m: TomePatchModel.execute(m, 0.3)[0],
    "PerturbedAttentionGuidance": lambda m: PerturbedAttentionGuidance.execute(m, 3.0)[0],
    "CFGZeroStar": lambda m: CFGZeroStar.execute(m)[0],
    "CFGNorm": lambda m: CFGNorm.execute(m, 1.0)[0],
    "FreSca": lambda m: FreSca.execute(m, 1.0, 1.2, 20)[0],
    "TCFG": lambda m: TCFG.execute(m)[0],
    "Mahiro": lambda m: Mahiro.execute(m)[0],
    "EpsilonScaling": lambda m: EpsilonScaling.execute(m, 1.005)[0],
}


def bytes_of_contexts(contexts):
    """Returns the bytes of all living tensors of the shape of an identity's contexts."""
    gc.collect()
    shape = contexts.keys.shape
    tensors = (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))
    return sum(tensor.nbytes for tensor in tensors if tensor.shape == shape)


def reached(thing, found, depth=0):
    """Collects the tensors that patches, wrappers and closures of a model hold."""
    if id(thing) in found or depth > 12:
        return found
    found[id(thing)] = thing
    if isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple | set):
        inside = thing
    else:
        inside = [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
        inside += [getattr(thing, "__self__", None), *getattr(thing, "__dict__", {}).values()]
    if not isinstance(thing, torch.Tensor | torch.nn.Module):
        for each in inside:
            reached(each, found, depth + 1)
    return found


def test_following_nodes_copy_no_tensor_of_ours(model, clip, learned):
    applied, conditioning = apply_identity(model, clip, learned, "a photo of V*")
    contexts = conditioning[0][1]["sefi"]
    sample(applied, conditioning, encode(clip, ""))
    ours = {t.data_ptr() for t in (contexts.keys, contexts.values, contexts.reference)}
    before, chain = bytes_of_contexts(contexts), [applied]
    assert before > 0
    for follow in FOLLOWING.values():
        chain.append(follow(chain[-1]))
    assert len(chain) > 10 and bytes_of_contexts(contexts) == before
    for patcher in chain:
        parts = (patcher.model_options, patcher.wrappers, patcher.callbacks, patcher.object_patches)
        tensors = [t for t in reached(parts, {}).values() if torch.is_tensor(t)]
        assert not ours & {t.data_ptr() for t in tensors}
        assert all(t.shape != contexts.keys.shape for t in tensors)
    wrappers = [patcher.wrappers["apply_model"]["sefi"] for patcher in chain]
    assert all(each == wrappers[0] for each in wrappers)
    sample(chain[-1], conditioning, encode(clip, ""))
    assert bytes_of_contexts(contexts) == before


def test_the_bytes_of_a_copied_context_would_be_counted(model):
    """The count above can fail: older hosts copy a patch that is an object with its tensors, newer
    ones copy none.
    """

    class Patch:
        def __init__(self, tensor):
            self.tensor = tensor

        def __call__(self, n, context, value, options):
            return n, context, value

    contexts = StagedContext(*(torch.zeros(3, 5, 7) for _ in range(3)), (1000, 0))
    before, clone = bytes_of_contexts(contexts), model.clone()
    clone.set_model_attn2_patch(Patch(contexts.keys))
    following = clone.clone()
    (patch,) = following.model_options["transformer_options"]["patches"]["attn2_patch"]
    copies = [] if patch.tensor is contexts.keys else [patch.tensor]
    assert bytes_of_contexts(contexts) == before + contexts.keys.nbytes * len(copies)
    copies.append(contexts.keys.clone())
    assert bytes_of_contexts(contexts) == before + contexts.keys.nbytes * len(copies)
    assert any(torch.is_tensor(t) for t in reached(following.model_options, {}).values())
