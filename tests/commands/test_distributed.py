"""Two processes train, score and label as one, by gloo on the CPU.

torchrun starts them where its signals count, once for a training, once to stop it and once where a
process fails; elsewhere they are started with its environment.
"""

import contextlib
import itertools
import json
import os
import signal

import pytest
import torch

import main
from datasets.loading.pairs import TrainingData
from model.discriminator import KINDS
from tests.support import distributed_worker, forked
from tests.support.forked import MAIN, quick_python
from tests.support.helpers import TINY
from tests.support.methods import all_terms
from tests.support.runs import ROOTS, TORCHRUN, make_toy, two_started
from utils import processes
from utils.disk.run_folder import LATEST
from utils.errors import UsageError
from utils.shared_norm import SharedBatchNorm2d


def by_two(*words, cwd):
    """Run a command in two processes."""
    with two_started(*words, cwd=cwd) as both:
        for process in both:
            printed, _ = process.communicate()
            assert process.returncode == 0, printed.decode()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Return the results of `distributed_worker` in two processes."""
    path = tmp_path_factory.mktemp("two") / "result.pth"
    by_two("-m", "tests.support.distributed_worker", path, cwd=MAIN.parent)
    return torch.load(path, weights_only=True)


def assert_close(one, other):
    for part in ("method", "average"):
        for name, value in one[part].items():
            torch.testing.assert_close(
                value, other[part][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert one["scalars"] == pytest.approx(other["scalars"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", [*distributed_worker.METHODS, distributed_worker.TAUGHT])
def test_two_processes_train_as_one_with_unequally_many_ignored_pixels(of_two, kind):
    assert_close(of_two[kind], distributed_worker.train(kind))


@pytest.mark.parametrize("kind", distributed_worker.METHODS)
def test_two_processes_train_the_other_network_as_one(of_two, kind):
    other = distributed_worker.OTHER
    assert_close(of_two[f"{kind}, {other}"], distributed_worker.train(kind, network=other))


@pytest.mark.parametrize("discriminator", KINDS)
def test_adversarial_gradients_survive_float16_in_two_processes_and_passes(of_two, discriminator):
    """Their weight of 0.001 alone would round them to 0 at this loss scale."""
    found = of_two[f"adversarial, {discriminator}"]
    expected = distributed_worker.adversarial_gradient(discriminator, 1, torch.float32)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.9
    assert found.norm() / expected.norm() == pytest.approx(1, abs=0.1)


def test_a_teacher_is_equal_in_both_processes(of_two):
    found = of_two["teaching"]
    first, second = found["teachers"]
    assert first["updates"] == distributed_worker.STEPS
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_share_of_confident_pixels_is_that_of_all_processes(of_two):
    """The teacher's norms see the batches of both, too."""
    method = distributed_worker.with_teacher()
    all_terms(method, distributed_worker.global_batch(0, ignored=True))
    alone = method.pseudo.weight
    assert 0.05 < alone < 0.95
    torch.testing.assert_close(of_two["teaching"]["q"], alone.expand(2), rtol=0, atol=2e-3)


def test_dacs_in_two_processes_goes_on_as_if_it_had_not_been_stopped(of_two):
    whole, stopped = of_two["resumed"]["whole"], of_two["resumed"]["stopped"]
    assert whole["teacher.updates"] == distributed_worker.STEPS
    for name, value in whole.items():
        torch.testing.assert_close(stopped[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "kind, dtype, near",
    [
        ("norms", torch.float64, 1e-9),
        ("compiled norms", torch.float64, 1e-9),
        ("float32 norms", torch.float32, 1e-5),
    ],
)
def test_batch_norms_of_two_processes_see_the_whole_batch(of_two, kind, dtype, near):
    """Values, gradients and running statistics, also in one graph of the compiler."""
    for name, value in distributed_worker.normalise(dtype=dtype).items():
        torch.testing.assert_close(of_two[kind][name], value, rtol=near, atol=near, msg=name)


def test_a_weight_without_a_gradient_in_one_process_counts_there_as_one_of_0(of_two):
    assert of_two["averaged"].tolist() == [[0.5, 0], [0.5, 0]]


@pytest.mark.parametrize("eps", [1e-5, 3e-5])
def test_the_variance_of_a_constant_channel_is_0_not_rounded_below(eps):
    """A checkpoint that holds a variance below 0 is refused."""
    norm = SharedBatchNorm2d(3, eps=eps, momentum=1.0)
    norm(torch.full((2, 3, 4, 4), 20.0))
    assert norm.running_var.tolist() == [0, 0, 0]


def test_two_processes_clip_and_accumulate_as_one(of_two):
    alone = distributed_worker.train("fda", ignored=False, clip=0.1)
    assert_close(of_two["clipped in two passes"], alone)
    unclipped = distributed_worker.train("fda", ignored=False)
    assert alone["scalars"]["loss"] != unclipped["scalars"]["loss"]


def test_each_process_and_each_pass_of_a_step_draws_apart(of_two):
    """Two passes of two steps in each of two processes; the first process draws as one alone."""
    first, second = of_two["draws"]
    assert len({tuple(draw) for draw in (*first.tolist(), *second.tolist())}) == 8
    alone = TrainingData(range(8), batch_size=8, seed=3, passes=2)
    (generator,) = itertools.islice(alone.generators(6), 1)
    assert torch.equal(torch.rand(3, generator=generator), first[2])


def test_what_one_process_wants_all_do(of_two):
    assert of_two["agreed"] == [1, 5]


@pytest.mark.parametrize("kind", [*distributed_worker.METHODS, distributed_worker.TAUGHT])
def test_accumulated_batches_equal_the_large_batch(kind):
    alone = distributed_worker.train(kind, ignored=False)
    for passes in (2, 4):
        assert_close(distributed_worker.train(kind, passes, ignored=False), alone)


@pytest.mark.parametrize("passes", [1, 2])
def test_processes_take_disjoint_shares_of_the_same_order(monkeypatch, passes):
    data = TrainingData(range(21), range(5), batch_size=8, seed=3, passes=passes)
    whole = [sorted(batch) for batch in data.keys(1, 4)]
    for count in (1, 2, 4 // passes):
        shares = []
        for rank in range(count):
            monkeypatch.setattr(processes, "count", lambda count=count: count)
            monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
            own = list(data.own_keys(1, 4))
            assert {len(part) for part in own} == {8 // passes // count}
            shares.append(
                [list(itertools.chain(*own[i : i + passes])) for i in range(0, len(own), passes)]
            )
        dealt = [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)]
        assert dealt == whole


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(UsageError, match="4 images cannot be shared equally by 3 processes"):
        TrainingData(range(21), batch_size=4, seed=0)
    with pytest.raises(UsageError, match="at least 2 in each of 3 processes"):
        TrainingData(range(21), batch_size=3, seed=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A working directory with a Toy City and an FDA network that two processes trained."""
    folder = tmp_path_factory.mktemp("work")
    make_toy(folder, train=9, val=5)
    (folder / "toy" / "GTA5" / "images" / "._00001.png").touch()
    words = ("--no-python", quick_python(), MAIN, *command("train_fda", "--fda_beta", "0.05"))
    done = forked.run(*TORCHRUN, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "4 images (2 processes x 2)" in done.stdout
    assert done.stdout.count("mIoU last") == 1
    assert done.stderr.count("left out (hidden files): 1") == 1
    return folder


@pytest.fixture
def here(data, monkeypatch):
    monkeypatch.chdir(data)
    return data


def by_one(*words, cwd):
    """Run a command in this process alone, whose working directory is `cwd`."""
    assert main.main(list(map(str, words))) == 0


def main_by_two(*words, cwd):
    by_two(MAIN, *words, cwd=cwd)


def command(action, *more):
    words = ("--action", action, "--save_model_path", "runs", *ROOTS, *TINY, "--batch_size", "4")
    return (*words, "--num_epochs", "2", "--num_workers", "1", *more)


def test_scores_of_two_processes_are_exactly_those_of_one(here):
    run = here / "runs" / "fda05_sgd_noaug"
    trained = json.loads((run / "scores.json").read_text())
    words = command("train_fda", "--fda_beta", "0.05", "--validation_only", "True")
    records = []
    for start in (by_one, main_by_two):
        start(*words, "--batch_size", "2", cwd=here)
        records.append(json.loads((run / "validation_cityscapes.json").read_text()))
        (run / "validation_cityscapes.png").rename(run / f"of_{len(records)}.png")
    one, two = records
    for name in ("mIoU", "pixel_accuracy", "class_IoU"):
        assert one[name] == two[name]
    assert one["validation"] == two["validation"] and two["validation"]["images"] == 5
    assert (run / "of_1.png").read_bytes() == (run / "of_2.png").read_bytes()
    assert trained["best"]["mIoU"] == one["mIoU"], "each process has scored a network of its own"


def test_pseudo_labels_of_two_processes_are_those_of_one(here):
    best = here / "runs" / "fda05_sgd_noaug" / "best.pth"
    made = {}
    for name, start in (("one", by_one), ("two", main_by_two)):
        words = ("--mbt_checkpoints", best, best, "--pseudo_label_path", name)
        start(*command("generate_pseudo_labels", *words), cwd=here)
        files = sorted((here / name / "train").rglob("*.png"))
        made[name] = {path.relative_to(here / name): path.read_bytes() for path in files}
        made[name]["classes"] = json.loads((here / name / "summary.json").read_text())["classes"]
    assert made["one"] == made["two"] and len(made["one"]) == 9 + 1


@contextlib.contextmanager
def all_interrupted(*words, cwd):
    """torchrun, and what sends its two processes a signal."""
    started = forked.Command((*TORCHRUN, *words), cwd=cwd)
    try:
        yield [started], lambda: os.kill(started.pid, signal.SIGINT)
    finally:
        started.kill()


@contextlib.contextmanager
def second_interrupted(*words, cwd):
    """Two processes, and what signals the one that neither prints nor writes."""
    with two_started(*words, cwd=cwd) as both:
        yield both, lambda: os.kill(both[1].pid, signal.SIGINT)


def stopped(words, cwd, start):
    """Return what two processes print from the moment when they are interrupted in training."""
    with start(MAIN, *words, cwd=cwd) as (started, stop):
        printed = b""
        while b"epoch 2/" not in printed:
            some = os.read(started[0].stdout.fileno(), 4096)
            assert some, printed.decode()
            printed += some
        stop()
        rest = b"".join(process.communicate(timeout=120)[0] for process in started)
        assert 0 not in [process.returncode for process in started]
    return rest.decode()


@pytest.mark.parametrize("start", [all_interrupted, second_interrupted])
def test_a_stopped_run_goes_on_with_another_number_of_processes(here, start, capsys):
    """If one process is to stop, all stop after the same step."""
    words = command("train_ada", "--discriminator", "light", "--save_keyword", start.__name__)
    # A validation is not waited for, so that there is nothing to agree on in one.
    words = (*words, "--num_epochs", "16", "--validation_step", "16")
    words = (*words, "--rare_class_temperature", "0.1", "--ema_decay", "0.9")
    rest = stopped(words, here, start)
    assert rest.count("stopped after step") == 1, rest
    latest = torch.load(here / "runs" / start.__name__ / LATEST, weights_only=True)
    assert f"stopped after step {latest['step']} of 32" in rest
    by_one(*words, cwd=here)
    assert f"and {latest['step']} of 32 steps" in capsys.readouterr().out


def test_a_process_that_fails_takes_the_others_down_with_its_one_sentence(here):
    broken = here / "broken"
    (broken / "images").mkdir(parents=True)
    (broken / "labels").mkdir()
    for path in (here / "toy" / "GTA5").rglob("*.png"):
        (broken / path.relative_to(here / "toy" / "GTA5")).write_bytes(path.read_bytes())
    (broken / "images" / "00001.png").write_bytes(b"no picture")
    words = command("train_simple_gta5", "--cache_dir", "none", "--save_keyword", "broken")
    done = forked.run(*TORCHRUN, MAIN, *words, "--gta5_root", "broken", cwd=here, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("main.py: error: ") == 1
    assert "00001.png cannot be read as a picture" in done.stderr
    assert 'main.py", line' not in done.stderr, "the traceback of a process that was taken down"
