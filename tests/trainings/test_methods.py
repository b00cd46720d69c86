"""The losses and gradients of the adaptation methods are those of their equations."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import main
from datasets.labels import IGNORE
from datasets.samples import Batch, Sample
from main import FlatSettings as Settings
from model.average import MovingAverage
from model.catalog import NETWORKS
from model.discriminator import KINDS
from model.model_stages import BiSeNet
from tests.support import distributed_worker
from tests.support.methods import all_terms
from trainings import catalog
from trainings.engine.step import add_gradient, compile_parts
from trainings.experiment import Experiment, network_to_train
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils.cli.command_line import parse_settings
from utils.fda import fourier_transfer
from utils.losses import robust_entropy, segmentation_loss
from utils.upsampling import upsampled_softmax

SETTINGS = Settings(optimizer="adam", adv_weight=0.5, fda_beta=0.05)


def sample(seed: int, size=(64, 96)) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 19, (2, *size), generator=generator, dtype=torch.uint8)
    return Sample(image, label, ["a", "b"])


BATCH = Batch(sample(1), sample(2))


def distinct_methods():
    """One experiment for each method that an action trains."""
    return list({e.method: e for e in vars(catalog).values() if isinstance(e, Experiment)}.values())


def tiny(method, settings=SETTINGS):
    torch.manual_seed(0)
    return method(BiSeNet(base=8), settings).train()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "experiment", distinct_methods(), ids=lambda experiment: experiment.method.__name__
)
def test_every_method_trains_every_network_with_and_without_detail_guidance(experiment, network):
    """Each term is finite, and together they reach every weight."""
    for guided in (False, True):
        torch.manual_seed(0)
        settings = Settings(network=network, base_width=8, detail_guidance=guided)
        method = experiment.make_method(network_to_train(settings), settings).train()
        losses = all_terms(method, BATCH)
        assert all(term.isfinite() for term in losses.values())
        assert ("detail_source" in losses) == guided
        sum(losses.values()).backward()
        for name, gradient in gradients(method.network).items():
            assert gradient is not None and gradient.any(), name


def test_the_detail_that_is_shown_leaves_the_training_alone():
    settings = Settings(base_width=8, detail_guidance=True)
    method = FDA(network_to_train(settings), FDA.Options.of(settings)).train()
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        shown = method.detail_pictures(BATCH)
    assert list(shown) == ["detail", "predicted detail"]
    assert all(picture.shape == BATCH.source.image[0].shape for picture in shown.values())
    assert set(shown["detail"].unique().tolist()) == {0, 255}
    assert method.network.training
    assert all(torch.equal(t, before[name]) for name, t in method.state_dict().items())
    assert tiny(FDA).detail_pictures(BATCH) == {}


def test_the_heads_count_as_the_network_weighs_them(monkeypatch):
    method = tiny(Supervised)
    whole = all_terms(method, BATCH)["seg_source"]
    monkeypatch.setattr(type(method.network), "head_weights", (1.0, 0.0, 0.0))
    main_head = segmentation_loss(method.network.heads(BATCH.source.image)[:1], BATCH.source.label)
    assert torch.equal(all_terms(method, BATCH)["seg_source"], main_head) and main_head < whole


def gradients(module):
    return {name: None if p.grad is None else p.grad for name, p in module.named_parameters()}


def test_adas_gradients_equal_the_classic_four_to_the_bit():
    """Tsai et al.: segmentation and fooling with D frozen, then D on detached maps, twice."""
    ours = tiny(ADA)
    classic = copy.deepcopy(ours)
    add_gradient(ours, BATCH, torch.float32)

    network, discriminator = classic.network, classic.discriminator
    size = BATCH.source.image.shape[-2:]
    discriminator.requires_grad_(False)
    heads = network.heads(BATCH.source.image)
    segmentation = segmentation_loss(heads, BATCH.source.label)
    segmentation.backward(retain_graph=True)

    p_target = upsampled_softmax(network.main_logits(BATCH.target.image), size)
    fooled = discriminator(p_target)
    bce = F.binary_cross_entropy_with_logits
    (0.5 * bce(fooled, torch.zeros_like(fooled))).backward()
    discriminator.requires_grad_(True)
    p_source = upsampled_softmax(heads[0].detach(), size)
    for maps, label in ((p_source, 0.0), (p_target.detach(), 1.0)):
        output = discriminator(maps)
        (0.5 * bce(output, torch.full_like(output, label))).backward()

    expected = gradients(classic)
    for name, gradient in gradients(ours).items():
        assert torch.equal(gradient, expected[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ada_in_float16_keeps_the_gradient_that_fools_the_discriminator(kind):
    """At a loss scale of 2^12, in the one backward of all terms; without labels that gradient is
    all that the network gets. Scaled down to 8 images of 512x1024, whose means are over 4096
    patches."""
    settings = Settings(discriminator=kind)
    source, target = (crowd(seed) for seed in (1, 2))
    batch = Batch(source._replace(label=torch.full_like(source.label, IGNORE)), target)
    scale = 2**12 * (8 * 2 * 2) / 4096
    found = []
    for precision in (torch.float32, torch.float16):
        torch.manual_seed(0)
        method = ADA(BiSeNet(base=16), settings).to(memory_format=torch.channels_last).train()
        add_gradient(method, batch, precision, lambda loss: (scale * loss).backward())
        found.append(torch.cat([p.grad.flatten() for p in method.network.parameters()]))
    exact, ours = found
    assert torch.cosine_similarity(ours, exact, dim=0) > 0.9
    assert (ours.norm() / exact.norm()).item() == pytest.approx(1, abs=0.1)


def crowd(seed: int) -> Sample:
    """Eight images: batch norms that meet one pixel of each are tame."""
    image, label, _ = zip(*(sample(4 * seed + part, (64, 64)) for part in range(4)), strict=True)
    return Sample(torch.cat(image), torch.cat(label), [])


def parts_with_gradient(method, term):
    losses = all_terms(method, BATCH)
    method.zero_grad()
    losses[term].backward()
    return {
        name.split(".")[0]
        for name, gradient in gradients(method).items()
        if gradient is not None and gradient.any()
    }


@pytest.mark.parametrize(
    "term, part",
    [
        ("seg_source", "network"),
        ("adv_target", "network"),
        ("disc_source", "discriminator"),
        ("disc_target", "discriminator"),
    ],
)
def test_ada_each_term_trains_one_part(term, part):
    assert parts_with_gradient(tiny(ADA), term) == {part}


def with_discriminator_that_says(value: float) -> ADA:
    """D's last bias decides alone."""
    method = tiny(ADA)
    last = method.discriminator.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(value)
    return method


def test_ada_the_discriminators_label_of_the_target_is_1():
    """A D that says "target" (large logits) errs on the source alone, and is not fooled."""
    losses = all_terms(with_discriminator_that_says(20.0), BATCH)
    assert losses["disc_target"] < 1e-6 and losses["disc_source"] > 9
    assert losses["adv_target"].item() == pytest.approx(0.5 * 20.0, rel=1e-4)
    losses = all_terms(with_discriminator_that_says(-20.0), BATCH)
    assert losses["disc_source"] < 1e-6 and losses["disc_target"] > 9
    assert losses["adv_target"] < 1e-6


def test_ada_accuracy_is_the_share_of_patches_told_right():
    method = with_discriminator_that_says(1.0)
    all_terms(method, BATCH)
    assert {name: value.item() for name, value in method.observed.items()} == {
        "disc_accuracy_source": 0.0,
        "disc_accuracy_target": 1.0,
    }


def test_ada_the_discriminators_optimiser_is_adam_whatever_the_networks_is():
    for optimizer in ("sgd", "adamw", "rmsprop"):
        settings = Settings(optimizer=optimizer)
        made = tiny(ADA, settings).optimizers()
        (group,) = made["discriminator"].param_groups
        assert type(made["discriminator"]) is torch.optim.Adam
        assert (group["lr"], group["betas"]) == (1e-4, (0.9, 0.99))
        assert type(made["network"]).__name__.lower() == optimizer


def test_ada_a_collapsed_discriminator_is_diagnosed():
    means = {
        "disc_accuracy_source": 0.9,
        "disc_accuracy_target": 0.8,
        "disc_source": 0.1,
        "disc_target": 0.1,
    }
    method = tiny(ADA)
    assert method.diagnose(means) is None
    nearly_perfect = {"disc_accuracy_source": 0.995, "disc_accuracy_target": 0.992}
    assert "collapsed" in method.diagnose({**means, **nearly_perfect})
    assert method.diagnose({**means, "disc_accuracy_source": 1.0}) is None
    assert "collapsed" in method.diagnose({**means, "disc_source": 0.01, "disc_target": 1e-9})
    assert method.diagnose(dict.fromkeys(means, math.nan)) is None  # float16 skipped every step


def test_fda_trains_on_the_source_in_the_targets_style_and_the_targets_entropy():
    method = tiny(FDA)
    twin = copy.deepcopy(method).network
    losses = all_terms(method, BATCH)
    stylised = fourier_transfer(BATCH.source.image, BATCH.target.image, 0.05)
    expected = segmentation_loss(twin.heads(stylised), BATCH.source.label)
    entropy = 0.005 * robust_entropy(twin.main_logits(BATCH.target.image), 2.0)
    assert torch.equal(losses["seg_source"], expected)
    assert torch.equal(losses["ent_target"], entropy)


def test_ssl_adds_the_pseudo_labels_loss():
    method = tiny(SSLFDA)
    twin = copy.deepcopy(method).network
    losses = all_terms(method, BATCH)
    fda = all_terms(tiny(FDA), BATCH)
    assert torch.equal(losses["seg_source"], fda["seg_source"])
    stylised = fourier_transfer(BATCH.source.image, BATCH.target.image, 0.05)
    twin.heads(stylised)  # the norms' running statistics play no part in training
    heads = twin.heads(BATCH.target.image)
    assert torch.equal(losses["seg_target"], segmentation_loss(heads, BATCH.target.label))
    torch.testing.assert_close(losses["ent_target"], fda["ent_target"])


def test_ssl_trains_on_where_no_pixel_has_a_pseudo_label():
    target = BATCH.target._replace(label=torch.full_like(BATCH.target.label, IGNORE))
    method = tiny(SSLFDA)
    losses = all_terms(method, Batch(BATCH.source, target))
    assert losses["seg_target"] == 0
    sum(losses.values()).backward()
    found = gradients(method)
    assert all(gradient is None or gradient.isfinite().all() for gradient in found.values())
    assert found["network.cp.backbone.features.0.conv.weight"].any()


def test_a_method_reads_no_flag_of_another_method():
    """Else the same command with another value would answer that the run is finished."""
    options = catalog.FOURIER.make_method(BiSeNet(base=8), SETTINGS).options
    assert (options.fda_beta, options.optimizer) == (0.05, "adam")
    for name in ("adv_weight", "ssl_round", "num_epochs"):
        assert not hasattr(options, name)


def test_a_result_depends_on_the_flags_of_a_teacher_only_where_there_is_one():
    """Else a flag that changes nothing makes another run."""
    words = ("--confidence", "0.9", "--teacher_decay", "0.9", "--mask_block", "16")
    for experiment, ratio, counting in (
        (catalog.FOURIER, "0", set()),
        (catalog.FOURIER, "0.5", {"confidence", "teacher_decay", "mask_block"}),
        (catalog.MIXING, "0", {"confidence", "teacher_decay"}),
    ):
        command = ("--action", experiment.action, *words, "--mask_ratio", ratio)
        settings = parse_settings(command, main.ACTIONS)
        found = settings.result_settings(experiment.own_flags(settings))
        assert {"confidence", "teacher_decay", "mask_block"} & found.keys() == counting
        said = {"confidence", "teacher_decay", "mask_block"} - counting
        assert experiment.without_effect(settings) == dict.fromkeys(said, "mask_ratio")


@pytest.mark.parametrize("method", [ADA, FDA, SSLFDA])
def test_ohem_reaches_every_segmentation_term(method):
    """The network is confident, and its easy pixels are left out of the mean."""

    def losses(ohem: bool):
        settings = Settings(optimizer="adam", fda_beta=0.05, ohem=ohem)
        made = tiny(method, settings)
        for head in (made.network.conv_out, made.network.conv_out16, made.network.conv_out32):
            head.conv_out.weight.data *= 100
        return all_terms(made, BATCH)

    plain, hard = losses(False), losses(True)
    assert all(hard[name] > plain[name] for name in plain if name.startswith("seg"))


@pytest.mark.parametrize("method", [ADA, FDA, SSLFDA, DACS])
def test_every_term_is_float32_and_alike_under_bf16_autocast(method):
    exact = all_terms(tiny(method), BATCH)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = all_terms(tiny(method), BATCH)
    sum(reduced.values()).backward()
    for name, term in reduced.items():
        assert term.dtype == torch.float32 and term.ndim == 0
        assert term.item() == pytest.approx(exact[name].item(), rel=0.1), name


@pytest.mark.slow
def test_compiled_parts_train_alike_and_keep_their_names(monkeypatch):
    compile_eagerly = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda part, **_: compile_eagerly(part, backend="eager")
    )
    plain = distributed_worker.train("ada")
    made = ADA
    monkeypatch.setitem(distributed_worker.METHODS, "ada", lambda *words: compiled(made(*words)))
    fused = distributed_worker.train("ada")
    assert fused["method"].keys() == plain["method"].keys()
    assert fused["scalars"] == pytest.approx(plain["scalars"], rel=1e-4)


@pytest.mark.parametrize("method", [ADA, FDA, SSLFDA, DACS])
def test_the_parts_of_teachers_are_compiled_too(method, monkeypatch):
    """The teacher of masked consistency lies deeper in its method."""
    parts = set()
    monkeypatch.setattr(nn.Module, "compile", lambda part, **_: parts.add(part))
    made = compiled(tiny(method, dataclasses.replace(SETTINGS, mask_ratio=0.5)))
    (teacher,) = (one for one in made.modules() if isinstance(one, MovingAverage))
    assert parts >= {*made.network.children(), *teacher.module.children()}
    assert not parts & set(made.children())


def compiled(method):
    compile_parts(method)
    return method
