"""What the table of neighbours cannot show: runs beside and after each other, losses that are told,
shapes that are refused.
"""

import logging

import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_merging as merging
import pytest
import seeded
import torch
from comfy.patcher_extension import WrappersMP
from neighbours import control_net, lora_schedule
from scene import Scene
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.sefi_core.contexts import StagedContext
from sefi_pack.sefi_core.errors import MismatchError
from sefi_pack.sefi_core.identity.identity import Identity
from test_parity import ksampler

import nodes


@pytest.fixture
def plain(model, clip, vae):
    return Scene("SD 1.x", model, clip, vae)


@pytest.fixture
def scene(model, clip, vae, learned):
    return Scene("SD 1.x", model, clip, vae, learned)


@pytest.fixture
def neutral_scene(model, clip, vae, neutral):
    return Scene("SD 1.x", model, clip, vae, neutral)


def another(identity: Identity) -> Identity:
    return Identity({name: pairs.flip(-1) for name, pairs in identity.pairs.items()})


def test_one_applied_model_samples_the_same_again_and_for_others_in_between(scene, learned):
    model, positive = scene.prompt()
    other = apply_identity(scene.model, scene.clip, another(learned), "a photo of V*")[1]
    first, between, again = (scene.ksample(model, c) for c in (positive, other, positive))
    assert torch.equal(first, again) and not torch.equal(first, between)


def test_a_sampler_inside_anothers_step_with_another_identity(scene, learned):
    """As a preview while sampling does it: neither run sees the other's identity."""
    sample = ksampler(steps=3)
    negative = scene.plain()
    outer = apply_identity(scene.model, scene.clip, learned, "a photo of V*")
    inner = apply_identity(scene.model, scene.clip, another(learned), "a photo of V*")
    apart = [sample(*applied, negative) for applied in (outer, inner)]
    within = []

    def sample_within(executor, *args, **kwargs):
        if not within:
            within.append(None)
            turn = scene.model.model.current_patcher
            within[0] = sample(*inner, negative)
            scene.model.model.current_patcher = turn  # the host forgets whose turn it was
        return executor(*args, **kwargs)

    model = outer[0].clone()
    model.add_wrapper(WrappersMP.PREDICT_NOISE, sample_within)
    assert torch.equal(sample(model, outer[1], negative), apart[0])
    assert torch.equal(within[0], apart[1]) and not torch.equal(*apart)


@pytest.mark.parametrize("sampling", ["eps", "lcm"])
def test_stages_are_those_of_a_model_sampling_set_afterwards(sampling, scene):
    """The contexts hold their stage's number; the UNet sees the timestep beside it."""
    model, positive = scene.prompt()
    contexts = positive[0][1]["sefi"]
    number = torch.arange(5.0).view(5, 1, 1).expand_as(contexts.keys)
    positive[0][1]["sefi"] = StagedContext(number, number, contexts.reference, contexts.edges)
    patched = advanced.ModelSamplingDiscrete().patch(model, sampling, sampling == "eps")[0]
    seen = []

    def note(executor, x, timesteps, context, *args, **kwargs):
        seen.append((int(timesteps[0]), int(context[0, 0, 0])))
        return executor(x, timesteps, context, *args, **kwargs)

    patched.add_wrapper(WrappersMP.DIFFUSION_MODEL, note)
    ksampler(steps=12, cfg=1.0)(patched, positive, scene.plain())
    assert seen[0] == (999, 0) and {stage for _, stage in seen} == {0, 1, 2, 3, 4}
    assert all(stage == (999 - timestep) // 200 for timestep, stage in seen)


def test_a_class_word_that_needs_a_third_chunk(scene, plain, learned):
    """The placeholder's prompt has two chunks, the reference prompt three."""
    retriever = Identity(learned.pairs, class_word="golden retriever")
    text = f"V*, {'a ' * 147} V*"
    applied = [
        apply_identity(scene.model, scene.clip, retriever, text, strength=s) for s in (0.0, 1.0)
    ]
    contexts = applied[1][1][0][1]["sefi"]
    assert (contexts.reference.shape[1], contexts.keys.shape[1]) == (3 * 77, 6 * 77)
    person = plain.ksample(plain.model, plain.plain(text.replace("V*", "golden retriever")))
    zero, one = (scene.ksample(*both) for both in applied)
    assert torch.equal(zero, person) and not torch.equal(one, person)
    assert not torch.allclose(one, person, atol=1e-2)


@pytest.mark.parametrize("order", ["zeroed, then added to", "added to, then zeroed"])
def test_a_zeroed_prompt_has_no_identity_left_whatever_is_added(order, scene, plain):
    def change(conditioning):
        zero = nodes.ConditioningZeroOut().zero_out
        added = lambda c: nodes.ConditioningConcat().concat(c, plain.plain("a hat"))[0]  # noqa: E731
        if order == "zeroed, then added to":
            return added(zero(conditioning)[0])
        return zero(added(conditioning))[0]

    (model, person), (applied, positive) = plain.prompt(), scene.prompt()
    assert torch.equal(
        scene.ksample(applied, change(positive)), plain.ksample(model, change(person))
    )


def of_ours(caplog):
    """Returns the log's records that are not the host's own."""
    return [record for record in caplog.records if record.name == "sefi"]


@pytest.mark.parametrize("node", ["concat", "addWeighted"])
def test_ours_as_conditioning_from_is_the_class_word_and_the_log_says_so(
    node, scene, plain, caplog
):
    """These nodes keep no more than the plain tensor of their second conditioning."""

    def second(conditioning):
        first = plain.plain("a red hat")
        if node == "concat":
            return nodes.ConditioningConcat().concat(first, conditioning)[0]
        return nodes.ConditioningAverage().addWeighted(first, conditioning, 0.4)[0]

    (model, person), (applied, positive) = plain.prompt(), scene.prompt()
    expected = plain.ksample(model, second(person))
    with caplog.at_level(logging.WARNING, logger="sefi"):
        scene.ksample(applied, positive)
        assert not of_ours(caplog)
        assert torch.equal(scene.ksample(applied, second(positive)), expected)
    (record,) = of_ours(caplog)
    assert record.message.startswith("No identity has reached this sampler, ")


def test_ours_as_model2_of_a_merge_is_the_class_word(scene, plain):
    """The host's merge keeps the weights of its second model, nothing else."""
    other = seeded.tiny_model(seed=9)

    def merge(model):
        return merging.ModelMergeSimple().merge(other, model, 0.6)[0]

    (model, person), (applied, positive) = plain.prompt(), scene.prompt()
    assert torch.equal(scene.ksample(merge(applied), positive), plain.ksample(merge(model), person))


def test_a_scheduled_clip_gives_each_of_its_entries_an_identity(scene, clip):
    scheduled = hooks.SetClipHooks().apply_hooks(clip, True, True, lora_schedule(scene))[0]
    entries = scene.prompt(clip=scheduled)[1]
    assert [entry[1]["clip_start_percent"] for entry in entries] == [0.0, 0.5]
    first, second = (entry[1]["sefi"] for entry in entries)
    assert not torch.equal(first.keys, second.keys)
    for entry in entries:
        assert torch.equal(entry[1]["sefi"].reference, entry[0])


def test_a_control_net_reads_the_class_word(scene, plain):
    def contexts_of(scene):
        model, positive = scene.prompt()
        positive, negative = control_net(scene, positive)
        seen = []
        net = positive[0][1]["control"].control_model
        net.register_forward_pre_hook(
            lambda module, args, inputs: seen.append(inputs["context"]), with_kwargs=True
        )
        scene.ksample(model, positive, negative)
        return seen

    ours, theirs = contexts_of(scene), contexts_of(plain)
    assert ours and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "change",
    [lambda c: c[:, :50], lambda c: c.repeat(5, 1, 1), lambda c: c[..., :32]],
    ids=["shortened", "made a batch", "narrowed"],
)
def test_a_prompt_changed_beyond_following_is_refused_in_one_sentence(change, scene):
    model, ((tensor, extras),) = scene.prompt()
    with pytest.raises(MismatchError, match=r"^positive: a node after Apply SeFi Conditioning "):
        scene.ksample(model, [[change(tensor), extras]])


def test_clones_of_an_applied_model_copy_no_tensor(scene):
    """Ten nodes follow, each a clone; the identity's tensors stay in the conditioning."""

    def tensors_in(value, seen):
        if isinstance(value, torch.Tensor):
            seen.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                tensors_in(item, seen)
        elif isinstance(value, list | tuple):
            for item in value:
                tensors_in(item, seen)
        elif callable(value):
            tensors_in([c.cell_contents for c in getattr(value, "__closure__", None) or ()], seen)
            tensors_in(vars(value) if hasattr(value, "__dict__") else {}, seen)
        return seen

    model, positive = scene.prompt()
    for _ in range(10):
        model = model.clone()
    assert tensors_in([model.model_options, model.wrappers, model.callbacks], []) == []
    assert model.is_clone(scene.model)
    assert not torch.equal(
        scene.ksample(model, positive),
        scene.ksample(scene.model, positive),
    )


def test_a_neutral_identity_leaves_no_trace_in_the_model(neutral_scene, plain):
    """Not a weight, not an option of the artist's model is other than before."""
    before = {k: v.clone() for k, v in plain.model.model.state_dict().items()}
    options = dict(plain.model.model_options["transformer_options"])
    neutral_scene.ksample(*neutral_scene.prompt())
    after = plain.model.model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert plain.model.model_options["transformer_options"] == options
    assert not plain.model.wrappers
