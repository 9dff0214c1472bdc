"""Who arrived: an identity that a graph loses is told once, in its node, with the remedy; and
nothing is said where all is well.
"""

import functools
import gc
import json
import logging
import re
from collections import Counter, namedtuple
from pathlib import Path

import comfy.samplers
import comfy_extras.nodes_mask as nodes_mask
import pytest
import torch
from scene import Scene
from sefi_pack.nodes.host.apply import account
from sefi_pack.nodes.host.apply.arrivals import Applied, Arrival, contexts_of
from sefi_pack.nodes.host.apply.equality import wants_equality
from sefi_pack.nodes.host.apply.graph import PromptGraph
from server import PromptServer
from stand_ins import Executions, Page, Parts, prompt_of

import nodes

SAMPLING = {
    "seed": 3, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal",
    "denoise": 1.0,
}  # fmt: skip


def ksampler(model, positive, latent="latent@0", **changed):
    inputs = {"model": model, "positive": positive, "negative": "negative@0"}
    return "KSampler", {**SAMPLING, **inputs, "latent_image": latent, **changed}


def apply(model="parts@0", who="anna", text="a photo of V*", **changed):
    inputs = {"model": model, "clip": "parts@1", "identity": f"{who}@2", "text": text}
    return "ApplySeFiConditioning", {**inputs, **changed}


def text(words):
    return "CLIPTextEncode", {"clip": "parts@1", "text": words}


def graph(**named):
    """Returns a prompt with two identities, a plain prompt and a negative one; what else is named
    comes after, and every node called picture... is kept.
    """
    parts = {
        "parts": ("Parts", {"name": "anna"}),
        "anna": ("Parts", {"name": "anna"}),
        "bert": ("Parts", {"name": "bert"}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "negative": text("blurry"),
        "plain": text("a photo of a wall"),
    }
    kept = {f"keep {n}": ("Keep", {"latent": f"{n}@0"}) for n in named if n.startswith("picture")}
    return prompt_of(**parts, **named, **kept)


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(PromptServer, "instance", Page(), raising=False)
    monkeypatch.setattr(account, "_complained", set())
    return PromptServer.instance


@pytest.fixture
def host(page, model, clip, learned):
    other = type(learned)({name: pairs.flip(-1) for name, pairs in learned.pairs.items()})
    Parts.parts = {"model": model, "clip": clip, "anna": learned, "bert": other}
    return Executions(page)


def said(host, prompt, **others):
    _, told, messages = host.run(prompt, **others)
    assert messages[-1][0] == "execution_success", messages[-1]
    return told


CONCAT = "ConditioningConcat", {"conditioning_to": "apply@1", "conditioning_from": "other@1"}
FINE = {
    "alone": dict(apply=apply(), picture=ksampler("apply@0", "apply@1")),
    "a plain prompt on our model for comparison": dict(
        apply=apply(),
        picture=ksampler("apply@0", "apply@1"),
        picture_plain=ksampler("apply@0", "plain@0"),
    ),
    "one picture each of two in a row": dict(
        apply=apply(),
        other=apply("apply@0", "bert"),
        picture=ksampler("other@0", "apply@1"),
        picture_other=ksampler("other@0", "other@1"),
    ),
    "both in one picture": dict(
        apply=apply(),
        other=apply("apply@0", "bert"),
        both=("ConditioningCombine", {"conditioning_1": "apply@1", "conditioning_2": "other@1"}),
        picture=ksampler("other@0", "both@0"),
    ),
    "a second pass": dict(
        apply=apply(),
        first=ksampler("apply@0", "apply@1"),
        picture=ksampler("apply@0", "apply@1", "first@0", denoise=0.5),
    ),
    "zeroed as the negative": dict(
        apply=apply(),
        zero=("ConditioningZeroOut", {"conditioning": "apply@1"}),
        picture=ksampler("apply@0", "apply@1", negative="zero@0"),
    ),
    "steps of plain prompt and regions": dict(
        apply=apply(),
        other=apply("apply@0", "bert"),
        picture=(
            "StepByStep",
            {
                "model": "other@0", "base": "plain@0", "negative": "negative@0",
                "latent": "latent@0", "one": "apply@1", "two": "other@1",
            },
        ),
    ),
    "a lazy branch that is not taken": dict(
        apply=apply(),
        switch=("LazySwitch", {"second": True, "one": "apply@1", "two": "plain@0"}),
        picture=ksampler("apply@0", "switch@0"),
    ),
    "a switch to another prompt, of both that were made": dict(
        apply=apply(),
        switch=("Switch", {"second": True, "one": "apply@1", "two": "plain@0"}),
        picture=ksampler("apply@0", "switch@0"),
    ),
    "a switch from one person to another": dict(
        apply=apply(),
        other=apply("apply@0", "bert"),
        switch=("Switch", {"second": True, "one": "apply@1", "two": "other@1"}),
        picture=ksampler("other@0", "switch@0"),
    ),
    "a switch to the plain prompt of the same words": dict(
        apply=apply(),
        words=text("a photo of person"),
        switch=("Switch", {"second": True, "one": "apply@1", "two": "words@0"}),
        picture=ksampler("apply@0", "switch@0"),
    ),
    "a switch that takes anything": dict(
        apply=apply(),
        other=apply("apply@0", "bert"),
        switch=("AnySwitch", {"any_01": "other@1", "any_02": "apply@1"}),
        picture=ksampler("other@0", "switch@0"),
    ),
    "a switch behind a switch": dict(
        apply=apply(),
        first=("AnySwitch", {"any_01": "plain@0", "any_02": "apply@1"}),
        switch=("AnySwitch", {"any_01": "first@0", "any_02": "apply@1"}),
        picture=ksampler("apply@0", "switch@0"),
    ),
    "a switch to a plain second pass": dict(
        apply=apply(),
        first=ksampler("apply@0", "apply@1"),
        switch=("Switch", {"second": True, "one": "apply@1", "two": "plain@0"}),
        picture=ksampler("apply@0", "switch@0", "first@0", denoise=0.5),
    ),
    "a switch to a model without a region": dict(
        apply=apply(),
        couple=("Couples", {"model": "apply@0", "region": "apply@1"}),
        switch=("AnySwitch", {"any_01": "apply@0", "any_02": "couple@0"}),
        picture=ksampler("switch@0", "plain@0"),
    ),
    "an identity that comes through a switch and a Concat": dict(
        apply=apply(),
        other=apply("apply@0", "bert", "a photo of V* in a garden"),
        both=CONCAT,
        switch=("Switch", {"second": False, "one": "both@0", "two": "plain@0"}),
        picture=ksampler("other@0", "switch@0"),
    ),
    "a list of texts": dict(
        texts=("Texts", {"texts": "V* in a hat|a photo of V*"}),
        apply=apply(text="texts@0"),
        picture=ksampler("apply@0", "apply@1"),
    ),
    "a detailer without a text of its own": dict(
        apply=apply(),
        first=ksampler("apply@0", "apply@1"),
        picture=(
            "OwnText",
            {
                "model": "apply@0", "clip": "parts@1", "positive": "apply@1",
                "negative": "negative@0", "latent": "first@0", "wildcard": "",
            },
        ),
    ),
    "another person's face over it": dict(
        apply=apply(),
        other=apply("apply@0", "bert"),
        first=ksampler("other@0", "apply@1"),
        picture=ksampler("other@0", "other@1", "first@0", denoise=0.5),
    ),
    "the halves of one sampling, acting in the first": dict(
        apply=apply(end_percent=0.5),
        first=(
            "KSamplerAdvanced",
            {
                "model": "apply@0", "add_noise": "enable", "noise_seed": 3, "steps": 4, "cfg": 4.0,
                "sampler_name": "euler", "scheduler": "normal", "positive": "apply@1",
                "negative": "negative@0", "latent_image": "latent@0", "start_at_step": 0,
                "end_at_step": 2, "return_with_leftover_noise": "enable",
            },
        ),
        picture=(
            "KSamplerAdvanced",
            {
                "model": "apply@0", "add_noise": "disable", "noise_seed": 3, "steps": 4, "cfg": 4.0,
                "sampler_name": "euler", "scheduler": "normal", "positive": "apply@1",
                "negative": "negative@0", "latent_image": "first@0", "start_at_step": 2,
                "end_at_step": 10000, "return_with_leftover_noise": "disable",
            },
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_said_where_all_is_well(name, host):
    assert said(host, graph(**FINE[name])) == []


LOST = {
    "its model was reloaded": (
        dict(
            apply=apply(),
            reloaded=("ReloadsModel", {"model": "apply@0"}),
            picture=ksampler("reloaded@0", "apply@1"),
        ),
        r"^V\* has not reached KSampler \(9\), whose model does not come from Apply SeFi Cond",
    ),
    "its model was never connected": (
        dict(apply=apply(), picture=ksampler("parts@0", "apply@1")),
        r"^V\* has not reached KSampler \(8\), whose model does not come from .*; connect its",
    ),
    "its conditioning was rebuilt": (
        dict(
            apply=apply(),
            rebuilt=("DropsExtras", {"conditioning": "apply@1"}),
            picture=ksampler("apply@0", "rebuilt@0"),
        ),
        r"^V\* has not reached KSampler \(9\): a node in between has made a prompt of its own or ",
    ),
    "the second of an average": (
        dict(
            apply=apply(),
            mixed=(
                "ConditioningAverage",
                {
                    "conditioning_to": "plain@0", "conditioning_from": "apply@1",
                    "conditioning_to_strength": 0.5,
                },
            ),
            picture=ksampler("apply@0", "mixed@0"),
        ),
        r"^V\* has not reached KSampler \(9\): .*, Average or Concat as conditioning_from\); take",
    ),
    "a detailer's wildcard": (
        dict(
            apply=apply(),
            first=ksampler("apply@0", "apply@1"),
            picture=(
                "OwnText",
                {
                    "model": "apply@0", "clip": "parts@1", "positive": "apply@1",
                    "negative": "negative@0", "latent": "first@0", "wildcard": "a face",
                },
            ),
        ),
        r"^V\* has not reached OwnText \(9\): a node in between has made a prompt .*wildcard",
    ),
    "a region of attention couple": (
        dict(
            apply=apply(),
            couple=("Couples", {"model": "apply@0", "region": "apply@1"}),
            picture=ksampler("couple@0", "plain@0"),
        ),
        r"^V\* has not reached KSampler \(9\): .*Attention Couple.*Conditioning \(Set Mask\) and",
    ),
    "a second pass with another prompt": (
        dict(
            apply=apply(),
            first=ksampler("apply@0", "apply@1"),
            picture=ksampler("apply@0", "plain@0", "first@0", denoise=0.5),
        ),
        r"^V\* has reached an earlier pass and not KSampler \(9\), whose model comes from Apply",
    ),
    "its conditioning was forgotten": (
        dict(apply=apply(), picture=ksampler("apply@0", "plain@0")),
        r"^V\* has not reached KSampler \(8\), though its model comes from Apply SeFi",
    ),
    "its conditioning was emptied": (
        dict(
            apply=apply(),
            zero=("ConditioningZeroOut", {"conditioning": "apply@1"}),
            picture=ksampler("apply@0", "zero@0"),
        ),
        r"^V\* has not reached KSampler \(9\): a node such as Conditioning Zero Out has emptied",
    ),
    "strength 0": (
        dict(apply=apply(strength=0.0), picture=ksampler("apply@0", "apply@1")),
        r"^V\* does not act in KSampler \(8\): its strength is 0; set strength higher\.$",
    ),
    "a second pass outside its range": (
        dict(
            apply=apply(end_percent=0.3),
            first=ksampler("apply@0", "apply@1"),
            picture=ksampler("apply@0", "apply@1", "first@0", denoise=0.5),
        ),
        r"^V\* does not act in KSampler \(9\), which samples from \d+ to \d+ percent; set start",
    ),
    "its conditioning was rebuilt and then chosen": (
        dict(
            apply=apply(),
            rebuilt=("DropsExtras", {"conditioning": "apply@1"}),
            switch=("Switch", {"second": False, "one": "rebuilt@0", "two": "plain@0"}),
            picture=ksampler("apply@0", "switch@0"),
        ),
        r"^V\* has not reached KSampler \(10\): a node in between has made",
    ),
    "appended by a node that has a choice": (
        dict(
            apply=apply(),
            both=("JoinsOrAppends", {"operation": "append", "one": "plain@0", "two": "apply@1"}),
            picture=ksampler("apply@0", "both@0"),
        ),
        r"^V\* has not reached KSampler \(9\): .*or kept the words",
    ),
    "joined to another prompt, before a detailer's wildcard": (
        dict(
            apply=apply(),
            both=(
                "ConditioningCombine", {"conditioning_1": "apply@1", "conditioning_2": "plain@0"}
            ),
            marked=(
                "MarksBoth", {"positive": "both@0", "negative": "negative@0", "mark": True}
            ),
            picture=(
                "OwnText",
                {
                    "model": "apply@0", "clip": "parts@1", "positive": "marked@0",
                    "negative": "negative@0", "latent": "latent@0", "wildcard": "a face",
                },
            ),
        ),
        r"^V\* has not reached OwnText",
    ),
    "one of two": (
        dict(
            apply=apply(),
            other=apply("apply@0", "bert", "a photo of <b>", placeholder="<b>"),
            rebuilt=("DropsExtras", {"conditioning": "other@1"}),
            both=(
                "ConditioningCombine", {"conditioning_1": "apply@1", "conditioning_2": "rebuilt@0"},
            ),
            picture=ksampler("other@0", "both@0"),
        ),
        r"^<b> has not reached KSampler \(11\): a node in between has made",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_loss_is_told_once_in_its_own_node_with_the_remedy(name, host, caplog):
    parts, sentence = LOST[name]
    prompt = graph(**parts)
    with caplog.at_level(logging.INFO, logger="sefi"):
        ((node, told),) = said(host, prompt)
    apply_ids = [i for i, n in prompt.items() if n["class_type"] == "ApplySeFiConditioning"]
    assert node == apply_ids[-1]
    assert re.search(sentence, told) and "; " in told and told.endswith(".") and "\n" not in told
    assert [r.message for r in caplog.records if r.message == told] == [told]


def test_a_cached_apply_is_told_again_and_then_that_all_is_well(host):
    prompt = graph(apply=apply(), picture=ksampler("parts@0", "apply@1"))
    ((node, first),) = said(host, prompt)
    prompt["8"]["inputs"]["seed"] = 4
    assert said(host, prompt) == [(node, first)]
    prompt["8"]["inputs"]["model"] = ["7", 0]
    assert said(host, prompt) == [(node, account.FOUND)]
    prompt["8"]["inputs"]["seed"] = 5
    assert said(host, prompt) == []


def test_two_samplers_that_lose_it_make_one_sentence(host):
    both = {f"picture {i}": ksampler("parts@0", "apply@1", seed=i) for i in (1, 2)}
    assert len(said(host, graph(apply=apply(), **both))) == 1


def inside_12(picture):
    """Returns a prompt whose Apply is node 3 in the subgraph at node 12."""
    prompt = graph(apply=apply(), picture=picture)
    prompt["12:3"] = prompt.pop("7")
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == "7":
                node["inputs"][name] = ["12:3", value[1]]
    return prompt


def test_the_ids_of_subgraphs_are_as_the_page_writes_them(host):
    ((node, _),) = said(host, inside_12(ksampler("parts@0", "apply@1")))
    assert node == "12:3"


def test_without_a_page_the_console_has_it(host, monkeypatch, caplog):
    monkeypatch.delattr(PromptServer, "instance")
    prompt = graph(apply=apply(), picture=ksampler("parts@0", "apply@1"))
    with caplog.at_level(logging.INFO, logger="sefi"):
        host.run(prompt)
    assert [
        r.message for r in caplog.records if r.message.startswith("V* has not reached KSampler")
    ]


def shown_with(links, number=7, **definitions):
    """Returns the page's graph of an Apply whose conditioning has links, [id, from, to, input]."""
    outputs = [{"links": [1]}, {"links": [link["id"] for link in links] or None}]
    apply_node = {"id": number, "type": "ApplySeFiConditioning", "outputs": outputs}
    return {"nodes": [apply_node], "links": links, **definitions}


def link(number, target, slot=0):
    return {"id": number, "target_id": target, "target_slot": slot}


@pytest.mark.parametrize("linked", [False, True])
def test_a_muted_branch_is_no_loss(linked, host):
    """The prompt has only the sampler for comparison; the page's graph has the muted one, too."""
    prompt = graph(apply=apply(), picture=ksampler("apply@0", "plain@0"))
    workflow = shown_with([link(2, 30)] if linked else [])
    if linked:
        workflow["links"] = [[2, 7, 1, 30, 0, "CONDITIONING"]]  # as the page's own graph has them
    assert len(said(host, prompt, workflow=workflow)) == (not linked)


@pytest.mark.parametrize("outside", [False, True])
def test_an_output_of_a_subgraph_that_is_not_used_is_a_loss(outside, host):
    """Inside, the conditioning is linked to the subgraph's output either way."""
    inside = shown_with([link(2, -20, 1)], number=3, id="sub")
    outputs = [{"links": [5]}, {"links": [6] if outside else None}]
    workflow = {
        "nodes": [{"id": 12, "type": "sub", "outputs": outputs}, shown_with([], 3)["nodes"][0]],
        "links": [[6, 12, 1, 30, 0, "CONDITIONING"]],
        "definitions": {"subgraphs": [inside]},
    }
    told = said(host, inside_12(ksampler("apply@0", "plain@0")), workflow=workflow)
    assert [node for node, _ in told] == ["12:3"] * (not outside)


@pytest.mark.parametrize("workflow", [{"nodes": [7]}, {"nodes": None}, {"id": 3}])
def test_a_page_that_sends_nonsense_is_told_all_the_same(workflow, host):
    prompt = graph(apply=apply(), picture=ksampler("apply@0", "plain@0"))
    assert len(said(host, prompt, workflow=workflow)) == 1


def test_an_execution_that_breaks_off_accuses_nobody(host, monkeypatch):
    def interrupted(*args, **kwargs):
        raise RuntimeError("stop")

    prompt = graph(apply=apply(), picture=ksampler("apply@0", "plain@0"))
    monkeypatch.setattr(comfy.samplers.KSAMPLER, "sample", interrupted)
    _, told, messages = host.run(prompt)
    assert messages[-1][0] == "execution_error" and told == []


def test_no_account_outlives_its_prompt(host):
    prompt = graph(apply=apply(), picture=ksampler("apply@0", "apply@1", steps=1))
    for seed in range(3):
        prompt["8"]["inputs"]["seed"] = seed
        said(host, prompt)
    assert account._latest.closed and len(account._latest.arrivals) == 1


def test_nothing_grows_over_two_hundred_prompts(host):
    """Every tenth encodes anew, every other one loses its identity and says so."""

    def held():
        gc.collect()
        kinds = {account.Account, account.Given, Applied, Arrival, PromptGraph}
        return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)

    prompt = graph(apply=apply(), picture=ksampler("apply@0", "apply@1", steps=1))
    prompt["4"]["inputs"].update(width=16, height=16)
    for number in range(200):
        prompt["7"]["inputs"]["strength"] = 1.0 + number // 10 / 100
        prompt["8"]["inputs"].update(seed=number, model=["1" if number % 2 else "7", 0])
        host.run(prompt)
        if number == 19:
            before = held()
    assert held() == before and before["Account"] == 1
    assert len(contexts_of) == 1 and len(account._complained) == 1


def test_the_account_knows_the_stages(host):
    said(host, graph(apply=apply(), picture=ksampler("apply@0", "apply@1", steps=8)))
    ((_, arrival),) = account._latest.arrivals["8"].items()
    assert arrival.stages == {0, 1, 2, 3, 4} and arrival.acted and arrival.span[0] == 999


@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "with a longer prompt"])
def test_bits_and_calls_are_those_without_the_account(
    mixed, host, model, clip, learned, monkeypatch
):
    """The wrapper taken off: conditionings batch as they do without what they carry."""
    pictures, calls = [], []
    for carried in (True, False):
        scene = Scene("SD 1.x", model, clip, None, learned)
        applied, positive = scene.prompt()
        if mixed:
            longer = scene.plain(", ".join(["word of a long prompt"] * 20))
            (positive,) = nodes.ConditioningCombine().combine(positive, longer)
        if not carried:
            hidden = ("model_conds", "sefi_applied")
            positive = [[t, {k: v for k, v in e.items() if k not in hidden}] for t, e in positive]
        pictures.append(scene.ksample(applied, positive))
        calls.append([(c.sigma, c.batch) for c in scene.calls])
    assert torch.equal(*pictures) and calls[0] == calls[1]


def two_people(joined, **others):
    return graph(
        apply=apply(),
        other=apply("apply@0", "bert", "a photo of V* in a garden", **others),
        both=joined,
        picture=ksampler("other@0", "both@0"),
    )


def test_concat_of_two_identities_acts_with_both(host):
    """The second's contexts stand where its words do; each counts in the picture."""
    (both,), told, _ = host.run(two_people(CONCAT))
    assert told == []
    (first,), told, _ = host.run(two_people(CONCAT, strength=0.0))
    assert not torch.equal(both, first) and "strength is 0" in told[0][1]
    arrivals = account._latest.arrivals["10"]
    assert len(arrivals) == 2 and all(arrival.carried for arrival in arrivals.values())


def test_concat_of_neutral_identities_is_the_plain_concat(host, neutral):
    Parts.parts.update(anna=neutral, bert=neutral)
    (both,), told, _ = host.run(two_people(CONCAT))
    plain = graph(
        first=text("a photo of person"),
        second=text("a photo of person in a garden"),
        both=(
            "ConditioningConcat",
            {"conditioning_to": "first@0", "conditioning_from": "second@0"},
        ),
        picture=ksampler("parts@0", "both@0"),
    )
    (person,), _, _ = host.run(plain)
    assert told == [] and torch.equal(both, person)


def test_a_plain_prompt_of_the_same_words_stays_plain(host):
    """Bert's own conditioning is in another picture; his words here are only words."""

    def pictures(second):
        latents, _, _ = host.run(
            graph(
                apply=apply(),
                other=apply("apply@0", "bert", "a photo of V* in a garden", strength=second),
                words=text("a photo of person in a garden"),
                both=(
                    "ConditioningConcat",
                    {"conditioning_to": "apply@1", "conditioning_from": "words@0"},
                ),
                picture=ksampler("other@0", "both@0"),
                picture_other=ksampler("other@0", "other@1"),
            )
        )
        return latents

    (one, him), (same, person) = pictures(1.0), pictures(0.0)
    assert torch.equal(one, same) and not torch.equal(him, person)


def test_attention_couple_is_told_before_it_samples(host, monkeypatch):
    prompt = graph(
        apply=apply(),
        couple=("Couples", {"model": "apply@0", "region": "apply@1"}),
        picture=ksampler("couple@0", "plain@0"),
    )
    heard = []

    def sample(*args, **kwargs):
        heard.extend(host.page.said)
        return real(*args, **kwargs)

    real = comfy.samplers.KSAMPLER.sample
    monkeypatch.setattr(comfy.samplers.KSAMPLER, "sample", sample)
    assert said(host, prompt) == heard and len(heard) == 1


def test_a_node_that_wants_k_and_v_alike_is_refused_before_it_samples(host, monkeypatch, neutral):
    prompt = graph(
        apply=apply(),
        patch=("AssertsKeysAreValues", {"model": "apply@0"}),
        picture=ksampler("patch@0", "apply@1"),
    )
    Parts.parts["bert"] = neutral  # its K and V are one
    with monkeypatch.context() as patched:
        patched.setattr(comfy.samplers.KSAMPLER, "sample", None)  # nothing is sampled
        _, told, messages = host.run(prompt)
    event, error = messages[-1]
    assert event == "execution_error" and told == []
    assert error["exception_type"].endswith("MismatchError")
    assert error["exception_message"].startswith(
        "positive: a node on this model wants K and V from one prompt, and an identity's differ; "
    )
    assert "require_equal" not in str(error)
    prompt["7"]["inputs"]["identity"] = ["3", 2]
    assert said(host, prompt) == []


def test_another_nodes_own_assertion_comes_through_untouched(host):
    prompt = graph(
        apply=apply(),
        patch=("AssertsSomethingElse", {"model": "apply@0"}),
        picture=ksampler("patch@0", "apply@1"),
    )
    _, told, messages = host.run(prompt)
    event, error = messages[-1]
    assert event == "execution_error" and told == []
    assert error["exception_type"] == "AssertionError"
    assert error["exception_message"].strip() == "seven channels are asked for"
    assert "require_width" in "".join(error["traceback"])


class Stateful:
    def __call__(self, q, k, v, extra_options):
        assert torch.equal(k, v)
        return q, k, v

    def bound(self, q, k, v, extra_options):
        assert len(k) == len(v) and k.mean() == v.mean(), "both"
        return q, k, v

    def apart(self, q, k, v, extra_options):
        assert k.isfinite().all()
        assert v.isfinite().all() and v.dtype == k.dtype and k.size(1) == v.size(1)
        return q, k, v


@pytest.mark.parametrize(
    ("patch", "wants"),
    [
        (Stateful(), True),
        (Stateful().bound, True),
        (Stateful().apart, False),
        (lambda q, k, v, options: (q, k, v), False),
        (lambda *inputs: inputs[:3], False),
        (functools.partial(Stateful().bound), False),
        (torch.add, False),
        (namedtuple("WithoutSource", "q k v o"), False),
    ],
    ids=range(8),
)
def test_what_wants_k_and_v_alike_is_told_by_its_source(patch, wants):
    assert wants_equality(patch) == wants


def test_every_pass_of_the_template_meets_the_identity(host):
    """detailer_and_upscale, small: two passes and a face, each with an Apply of its own."""
    masks = {"SolidMask": nodes_mask.SolidMask, "MaskComposite": nodes_mask.MaskComposite}
    nodes.NODE_CLASS_MAPPINGS.update(masks)
    path = Path(__file__).resolve().parents[2] / "workflows/api/detailer_and_upscale.json"
    prompt = json.loads(path.read_text())
    by_kind = {}
    for number, node in prompt.items():
        by_kind.setdefault(node["class_type"], []).append(number)
    (loader,), (identity,) = by_kind["CheckpointLoaderSimple"], by_kind["LoadSeFiEmbedding"]
    for number in (loader, identity):
        prompt[number] = {"class_type": "Parts", "inputs": {"name": "anna"}}
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if value == [identity, 0]:
                node["inputs"][name] = [identity, 2]
    (decode,), (save,) = by_kind["VAEDecode"], by_kind["SaveImage"]
    prompt[save] = {
        "class_type": "Keep",
        "inputs": {"latent": prompt.pop(decode)["inputs"]["samples"]},
    }
    prompt[by_kind["EmptyLatentImage"][0]]["inputs"].update(width=64, height=64)
    for number in by_kind["KSampler"]:
        prompt[number]["inputs"]["steps"] = 3
    (latent,), told, _ = host.run(prompt)
    assert told == [] and latent.shape[-1] == 12
    met = {
        sampler: {a.node for a, arrival in found.items() if arrival.acted}
        for sampler, found in account._latest.arrivals.items()
    }
    whole, face = by_kind["ApplySeFiConditioning"]
    assert met == dict(zip(by_kind["KSampler"], ({whole}, {whole}, {face}), strict=True))
