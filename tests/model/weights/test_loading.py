import hashlib
import itertools
import os
import pickle
import socket
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from model.catalog import NETWORKS, Design
from model.model_stages import BiSeNet
from model.stdcnet import BACKBONES, ConvX
from model.weights.loading import load_backbone, load_network
from model.weights.reading import read_state_dict
from utils.errors import UserError
from utils.utils import file_digest

STAGES = {"x2.0": [0], "x4.0": [1], "x8.0": [2, 3], "x16.0": [4, 5], "x32.0": [6, 7]}
"""Under which aliases the official code keeps the backbone's layers a second time."""

OFFICIAL_LIST = "fe346854eae17857417de851c7567de8fbe5de3512995b00e023238d1ee08391"
"""SHA-256 of the 432 names and shapes of the official STDC1-BiSeNet, sorted, one a line."""


def network(seed=0, **options):
    torch.manual_seed(seed)
    net = BiSeNet(**{"base": 8, **options})
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.running_mean)
    return net


def official_names(net):
    """A state dict as the official code saves one: aliases and classifier included."""
    weights = dict(net.state_dict())
    for alias, layers in STAGES.items():
        for layer in layers:
            start = f"cp.backbone.features.{layer}."
            for name in [n for n in weights if n.startswith(start)]:
                weights[name.replace(start, f"cp.backbone.{alias}.{layer}.")] = weights[name]
    width = 16 * net.cp.backbone.base
    classifier = nn.ModuleDict(
        {
            "conv_last": ConvX(width, width, kernel=1),
            "fc": nn.Linear(width, width, bias=False),
            "bn": nn.BatchNorm1d(width),
            "linear": nn.Linear(width, 1000, bias=False),
        }
    )
    return weights | {f"cp.backbone.{n}": t for n, t in classifier.state_dict().items()}


def backbone_file(net, path):
    names = {n.removeprefix("cp.backbone."): t for n, t in official_names(net).items()}
    outside = ("cp.", "ffm.", "conv_out")
    inside = {n: t for n, t in names.items() if not n.startswith(outside)}
    torch.save({"state_dict": inside, "epoch": 3, "top1": np.float64(73.91)}, path)
    return path


def same(a, b, only=""):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[n], b[n]) for n in a if n.startswith(only))


def saved(value, path):
    torch.save(value, path)
    return path


def test_the_official_names_and_shapes_are_the_official_ones():
    with torch.device("meta"):
        weights = official_names(BiSeNet())
    lines = sorted(f"{name}\t{tuple(tensor.shape)}" for name, tensor in weights.items())
    assert len(lines) == 432
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == OFFICIAL_LIST


DETAIL_HEAD = {
    "conv_out_sp8.conv.conv.weight": (64, 256, 3, 3),
    "conv_out_sp8.conv.bn.weight": (64,),
    "conv_out_sp8.conv.bn.bias": (64,),
    "conv_out_sp8.conv.bn.running_mean": (64,),
    "conv_out_sp8.conv.bn.running_var": (64,),
    "conv_out_sp8.conv_out.weight": (1, 64, 1, 1),
}
"""Names and shapes of the detail head in the official checkpoints."""


def test_a_detail_head_is_saved_and_loaded_under_the_official_names(tmp_path):
    net = BiSeNet()
    names = set(net.state_dict())
    net.add_detail_head()
    own = {
        name: tuple(tensor.shape)
        for name, tensor in net.state_dict().items()
        if name not in names and not name.endswith("num_batches_tracked")
    }
    assert own == DETAIL_HEAD
    head = {name: torch.rand(shape) for name, shape in DETAIL_HEAD.items()}
    file = saved({**BiSeNet().state_dict(), **head}, tmp_path / "official.pth")
    assert load_network(net, file, to_train=True).missing == []
    assert all(torch.equal(net.state_dict()[name], head[name]) for name in head)
    report = load_network(BiSeNet(), file)
    assert report.missing == report.unexpected == [], "a network that scores needs no such head"


def test_a_network_that_trains_may_get_its_detail_head_later(tmp_path):
    file = saved(network(1).state_dict(), tmp_path / "a.pth")
    net = network(2)
    net.add_detail_head()
    report = load_network(net, file, to_train=True)
    assert report.missing and all(name.startswith("conv_out_sp8.") for name in report.missing)


def test_official_names_are_all_accepted(tmp_path):
    detail_head = {"conv_out_sp8.conv.conv.weight": torch.ones(3)}
    file = saved(official_names(network(1)) | detail_head, tmp_path / "official.pth")
    net = network(2)
    assert (
        str(load_network(net, file)) == f"loaded {len(net.state_dict())}, missing 0, unexpected 0"
    )
    assert same(net, network(1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {f"module.{n}": t for n, t in weights.items()},
        lambda weights: {"network": weights, "scores": {"mIoU": 0.5}},
        lambda weights: {"state_dict": weights, "miou": np.float64(0.5), "n": np.int64(3)},
        lambda weights: {
            "method": {
                **{f"network.{n}": t for n, t in weights.items()},
                "discriminator.0.weight": torch.ones(2),
            },
            "step": 5,
        },
    ],
)
def test_every_wrapping_is_read(tmp_path, wrap):
    file = saved(wrap(network(1).state_dict()), tmp_path / "a.pth")
    net = network(2)
    report = load_network(net, file)
    assert not report.missing and not report.unexpected
    assert same(net, network(1))


def test_old_numpy_name_of_a_scalar_is_read(tmp_path):
    file = saved({"state_dict": network(1).state_dict(), "miou": np.float32(0.5)}, tmp_path / "a")
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(file) as read, zipfile.ZipFile(old, "w") as write:
        for item in read.infolist():
            content = read.read(item)
            if item.filename.endswith("data.pkl"):
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            write.writestr(item.filename, content)
    assert not load_network(network(2), old).missing


def without_outer_counts(weights):
    return {
        n: t
        for n, t in weights.items()
        if n.startswith("cp.backbone.") or not n.endswith("num_batches_tracked")
    }


def test_inplace_abn_scales_become_batch_norm_scales(tmp_path):
    source = network(1)
    assert (source.ffm.convblk.bn.weight < 0).any()
    file = saved(without_outer_counts(official_names(source)), tmp_path / "abn.pth")
    net = network(2)
    report = load_network(net, file)
    assert not report.missing and not report.unexpected
    for name in ("ffm.convblk.bn", "cp.arm16.bn_atten", "cp.conv_avg.bn", "conv_out32.conv.bn"):
        expected = source.get_submodule(name).weight.abs() + 1e-5
        assert torch.equal(net.get_submodule(name).weight, expected), name
    assert same(net, source, "cp.backbone.")
    assert torch.equal(net.ffm.convblk.bn.bias, source.ffm.convblk.bn.bias)


@pytest.mark.parametrize("keep", ["all", "none"])
def test_other_files_are_not_converted(tmp_path, keep):
    weights = network(1).state_dict()
    if keep == "none":
        weights = {n: t for n, t in weights.items() if not n.endswith("num_batches_tracked")}
    net = network(2)
    assert not load_network(net, saved(weights, tmp_path / "a.pth")).missing
    assert torch.equal(net.ffm.convblk.bn.weight, network(1).ffm.convblk.bn.weight)


def test_imagenet_weights_fill_the_backbone_alone(tmp_path):
    net = network(2)
    report = load_backbone(net, backbone_file(network(1), tmp_path / "STDC.tar"))
    assert report[:3] == (len(net.cp.backbone.state_dict()), [], [])
    assert same(net, network(1), "cp.backbone.")
    assert same(net, network(2), "ffm.") and same(net, network(2), "conv_out")


@pytest.mark.parametrize(("ours", "theirs"), [("stdc1", "stdc2"), ("stdc2", "stdc1")])
def test_the_other_backbone_is_refused_whole(tmp_path, ours, theirs):
    other = network(1, backbone=theirs)
    net = network(2, backbone=ours)
    files = {
        load_network: saved(other.state_dict(), tmp_path / "a.pth"),
        load_backbone: saved({"state_dict": other.cp.backbone.state_dict()}, tmp_path / "b.tar"),
    }
    for load, file in files.items():
        with pytest.raises(UserError, match=f"another network.*--backbone {theirs}"):
            load(net, file)
    assert same(net, network(2, backbone=ours))


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused_with_the_flags_that_fit(tmp_path):
    designs = [Design(*one, 8) for one in itertools.product(NETWORKS, BACKBONES)]
    designs.append(Design("pp_liteseg", "stdc2", 10))
    ours = Design("bisenet", "stdc1", 8)
    net = network(2)
    for theirs in designs:
        flags = [
            f"--{name} {wanted}"
            for name, own, wanted in zip(Design._fields, ours, theirs, strict=True)
            if own != wanted
        ]
        file = saved({"network": theirs.build().state_dict()}, tmp_path / "a.pth")
        for to_train in (False, True):
            if flags:
                with pytest.raises(UserError, match=f"; use {' '.join(flags)}$"):
                    load_network(net, file, to_train=to_train)
                assert same(net, network(2))


def test_imagenet_weights_fill_the_backbone_of_every_network(tmp_path):
    file = backbone_file(network(1), tmp_path / "STDC.tar")
    other = backbone_file(network(1, backbone="stdc2"), tmp_path / "STDC2.tar")
    for name in NETWORKS:
        net = Design(name, "stdc1", 8).build()
        assert load_backbone(net, file).missing == []
        filled = net.backbone.state_dict()
        expected = network(1).backbone.state_dict()
        assert all(torch.equal(filled[name], expected[name]) for name in expected)
        with pytest.raises(UserError, match=r"; use --backbone stdc2$"):
            load_backbone(net, other)
        whole = saved(net.state_dict(), tmp_path / "whole.pth")
        with pytest.raises(UserError, match="use --load_model_path"):
            load_backbone(network(2), whole)


def test_other_classes_and_widths_are_refused(tmp_path):
    for options in ({"num_classes": 11}, {"base": 16}):
        file = saved(network(1, **options).state_dict(), tmp_path / "a.pth")
        net = network(2)
        with pytest.raises(UserError, match=r"another network.* is .* and not "):
            load_network(net, file)
        assert same(net, network(2))


def test_a_file_for_the_other_flag_is_refused_by_its_name(tmp_path):
    whole = saved(network(1).state_dict(), tmp_path / "whole.pth")
    with pytest.raises(UserError, match="--load_model_path"):
        load_backbone(network(2), whole)
    with pytest.raises(UserError, match="--pretrain_path"):
        load_network(network(2), backbone_file(network(1), tmp_path / "backbone.tar"))


def test_what_is_missing_or_too_much_is_counted(tmp_path):
    weights = network(1).state_dict() | {"conv_out64.conv_out.weight": torch.ones(3)}
    del weights["conv_out32.conv_out.weight"]
    net = network(2)
    report = load_network(net, saved(weights, tmp_path / "a.pth"))
    loaded = len(net.state_dict()) - 1
    lacking = "missing: conv_out32.conv_out.weight"
    assert str(report) == f"loaded {loaded}, missing 1, unexpected 1; {lacking}"


MAIN_TENSORS = [
    name
    for name in network().state_dict()
    if not name.startswith(("conv_out16.", "conv_out32.")) and "num_batches" not in name
]


def test_a_network_that_scores_needs_every_tensor_of_its_main_path(tmp_path):
    weights = network(1).state_dict()
    for lost in MAIN_TENSORS[::40] + MAIN_TENSORS[-1:]:
        file = saved({n: t for n, t in weights.items() if n != lost}, tmp_path / "a.pth")
        net = network(2)
        with pytest.raises(UserError, match=rf"lacks 1 tensor of this network: {lost};"):
            load_network(net, file)
        assert same(net, network(2))
    main = {name: weights[name] for name in MAIN_TENSORS}
    load_network(net, saved(main, tmp_path / "main.pth"))
    assert all(torch.equal(net.state_dict()[name], main[name]) for name in main)


def test_a_training_starts_from_the_backbone_at_least(tmp_path):
    weights = network(1).state_dict()
    backbone = {n: t for n, t in weights.items() if n.startswith("cp.backbone.")}
    net = network(2)
    report = load_network(net, saved(backbone, tmp_path / "a.pth"), to_train=True)
    assert "cp.arm16.conv.conv.weight" in str(report) and same(net, network(1), "cp.backbone.")
    del backbone["cp.backbone.features.3.conv_list.0.bn.running_mean"]
    imagenet = {name.removeprefix("cp.backbone."): t for name, t in backbone.items()}
    with pytest.raises(UserError, match=r"lacks .* of this network"):
        load_network(net, saved(backbone, tmp_path / "b.pth"), to_train=True)
    with pytest.raises(UserError, match=r"lacks .* of this network"):
        load_backbone(net, saved(imagenet, tmp_path / "c.pth"))


def quantised(tensor):
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda t: t.to("meta"), "no values"),
        (lambda t: t.to_sparse(), "sparse"),
        (quantised, "quantised"),
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: t.long(), "int64"),
        (lambda t: torch.full_like(t, torch.nan), "NaN or infinity"),
        (lambda t: torch.full_like(t, 1e300, dtype=torch.float64), "NaN or infinity"),
        (lambda t: torch.nested.nested_tensor([t, t]), "nested"),
    ],
)
@pytest.mark.parametrize("name", ["cp.backbone.features.0.conv.weight", "ffm.convblk.bn.weight"])
def test_a_tensor_that_no_network_computes_with_is_named(tmp_path, name, spoil, problem):
    weights = without_outer_counts(network(1).state_dict())  # converted from InPlaceABN, too
    file = saved(weights | {name: spoil(weights[name])}, tmp_path / "a.pth")
    for to_train in (False, True):
        net = network(2)
        with pytest.raises(UserError, match=rf"a\.pth.*{name} .*{problem}"):
            load_network(net, file, to_train=to_train)
        assert same(net, network(2))


def test_a_variance_below_0_is_named(tmp_path):
    weights = network(1).state_dict()
    name = "conv_out.conv.bn.running_var"
    file = saved(weights | {name: -weights[name]}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"{name} holds a variance below 0"):
        load_network(network(2), file)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "socket", "zero"):
        for read in (read_state_dict, file_digest):
            with pytest.raises(UserError, match=f"{name} is a pipe, a socket or a device"):
                read(tmp_path / name)
    for read in (read_state_dict, file_digest):
        with pytest.raises(UserError, match=r"is a folder: name a file in it$"):
            read(tmp_path)
    for name in ("ema.pth", "latest.pth", "best.pth"):  # the likelier, the later it is made
        (tmp_path / name).touch()
        for read in (read_state_dict, file_digest):
            with pytest.raises(UserError, match=f"name a file in it, such as .*/{name}$"):
                read(tmp_path)
    server.close()


def test_a_checkpoint_of_a_newer_release_is_refused_in_a_sentence(tmp_path):
    weights = {"network": network(1).state_dict()}
    newer = saved({**weights, "format_version": 10**6}, tmp_path / "newer.pth")
    net = network(2)
    with pytest.raises(
        UserError, match=r"newer\.pth has checkpoint format 1000000.* newer release"
    ):
        load_network(net, newer)
    assert same(net, network(2))
    for content in (weights, {**weights, "format_version": 1}):
        assert not load_network(network(2), saved(content, tmp_path / "a.pth")).missing


def test_nothing_of_a_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no weights"):
        load_network(network(2), saved({"step": 3}, tmp_path / "b.pth"))


class Malicious:
    def __reduce__(self):
        return print, ("code of a stranger ran",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"state_dict": Malicious()}, tmp_path / "zip.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    for name in ("zip.pth", "raw.pth"):
        with pytest.raises(UserError, match=name):
            load_network(network(), tmp_path / name)
    assert "stranger" not in capsys.readouterr().out


def test_broken_files_are_named(tmp_path):
    whole = saved(network(1).state_dict(), tmp_path / "whole.pth").read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_network(network(2), tmp_path / name)


def test_a_training_on_other_classes_starts_from_all_that_fits(tmp_path):
    """The three last convolutions are of the classes; everything before them is loaded."""
    file = saved(network(1, num_classes=11).state_dict(), tmp_path / "a.pth")
    net, fresh, other = network(2), network(2).state_dict(), network(1, num_classes=11).state_dict()
    report = load_network(net, file, to_train=True)
    heads = [f"conv_out{stride}.conv_out.weight" for stride in ("", 16, 32)]
    assert report.missing == heads and "left out what is of the 11 other classes" in str(report)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, (fresh if name in heads else other)[name]), name


def test_as_many_other_classes_are_left_out_too(tmp_path):
    file = saved(network(1).state_dict(), tmp_path / "a.pth")
    assert len(load_network(network(2), file, to_train=True, same_classes=False).missing) == 3
    assert not load_network(network(2), file, to_train=True).missing
