"""DACS, its teacher and masked consistency compute their equations."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as tv

from datasets.labels import CLASS_NAMES, IGNORE, NUM_CLASSES
from datasets.samples import Batch, Sample
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.methods import all_terms
from trainings.engine.step import add_gradient
from trainings.teacher import Teacher
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_FDA import FDA
from utils.mixing import JITTER_STRENGTH

CONFIDENCE = 0.1
"""Some pixels of a network with random weights reach it, others do not."""

SIZE = (64, 96)


def options(**chosen) -> Settings:
    return Settings(optimizer="adam", **{"confidence": CONFIDENCE, "mix_weight": 0.5, **chosen})


def sample(seed: int, size=SIZE) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    blocks = torch.randint(0, NUM_CLASSES + 1, (2, size[0] // 8, size[1] // 8), generator=generator)
    blocks[blocks == NUM_CLASSES] = IGNORE
    label = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2).byte()
    return Sample(image, label, ["a", "b"])


def batch(seed: int = 0) -> Batch:
    return Batch(sample(1), sample(2), torch.Generator().manual_seed(seed))


def tiny(method=DACS, **chosen):
    torch.manual_seed(0)
    return method(BiSeNet(base=8), options(**chosen)).train()


def moved(method):
    """Take a step, so that teacher and network differ."""
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(
                0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    return method


# ------------------------------------------------------------------------ the plain form, float64


class Plain:
    """DACS and MIC image by image and class by class, in float64, from the papers."""

    def __init__(self, method, one: Batch):
        self.network = copy.deepcopy(method.network).double()
        self.teacher = copy.deepcopy(method.teacher.module).double()
        self.options, self.batch = method.options, one
        self.generator = torch.Generator().manual_seed(one.generator.initial_seed())

    def draw(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator)

    def losses(self) -> dict[str, torch.Tensor]:
        source, target = self.batch
        with torch.no_grad():
            p = self.enlarged(self.teacher.main_logits(target.image.double())).softmax(1)
        probability, label = p.max(1)
        q = (probability >= self.options.confidence).double().mean()
        keys = self.draw(2, NUM_CLASSES)
        image, mixed, weight = target.image.clone(), label.clone(), q.expand(label.shape).clone()
        for number in range(2):
            present = [c for c in range(NUM_CLASSES) if (source.label[number] == c).any()]
            ranked = sorted(present, key=lambda c, n=number: keys[n, c].item())
            for c in ranked[: math.ceil(len(present) / 2)]:
                there = source.label[number] == c
                image[number][:, there] = source.image[number][:, there]
                mixed[number][there] = c
                weight[number][there] = 1
        image = self.blurred(self.jittered(image))
        found = {
            "seg_source": self.cross_entropy(source.image.double(), source.label.long(), None),
            "seg_mixed": self.options.mix_weight * self.cross_entropy(image, mixed, weight),
        }
        if self.options.mask_ratio:
            masked = self.masked(self.jittered(target.image))
            found["seg_masked"] = q * self.cross_entropy(masked, label, None)
        return found

    def enlarged(self, logits: torch.Tensor) -> torch.Tensor:
        return F.interpolate(logits, SIZE, mode="bilinear", align_corners=True)

    def cross_entropy(self, image, label, weight) -> torch.Tensor:
        """The sum over three heads of the mean over pixels with a class."""
        valid = label != IGNORE
        total = 0
        for logits in self.network.heads(image):
            losses = F.cross_entropy(
                self.enlarged(logits), label, ignore_index=IGNORE, reduction="none"
            )
            total = total + (losses if weight is None else weight * losses)[valid].mean()
        return total

    def jittered(self, image: torch.Tensor) -> torch.Tensor:
        applied, *changes = self.draw(5).double().tolist()
        image = image.double() / 255
        if applied < 0.8:
            changes = [(2 * change - 1) * JITTER_STRENGTH for change in changes]
            image = tv.adjust_brightness(image, 1 + changes[0])
            image = tv.adjust_contrast(image, 1 + changes[1])
            image = tv.adjust_saturation(image, 1 + changes[2])
            image = tv.adjust_hue(image, changes[3])
        return 255 * image.double()

    def blurred(self, image: torch.Tensor) -> torch.Tensor:
        applied, place = self.draw(2).double().tolist()
        if applied >= 0.5:
            return image
        sigma = 0.15 + place
        return tv.gaussian_blur(image, [9, 9], [sigma, sigma])

    def masked(self, image: torch.Tensor) -> torch.Tensor:
        side = 4  # 32 pixels of 512 are 4 of 64
        rows, columns = SIZE[0] // side, SIZE[1] // side
        kept = self.draw(2, 1, rows, columns) >= self.options.mask_ratio
        image = image.clone()
        for number, _, row, column in (~kept).nonzero().tolist():
            down, across = slice(row * side, None), slice(column * side, None)
            image[number][:, down, across][:, :side, :side] = self.network.mean
        return image


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mask_ratio", [0.0, 0.7])
def test_a_step_equals_an_independent_plain_form_in_float64(mask_ratio, seed):
    method, one = moved(tiny(mask_ratio=mask_ratio)), batch(seed)
    plain = Plain(method, one)
    ours, expected = all_terms(method, one), plain.losses()
    assert 0.02 < method.observed["q"] < 0.98
    assert list(ours) == list(expected)
    for name, loss in expected.items():
        assert ours[name].item() == pytest.approx(loss.item(), rel=1e-4), name
    sum(ours.values()).backward()
    sum(expected.values()).backward()
    found, true = (
        torch.cat([p.grad.flatten().double() for p in network.parameters() if p.grad is not None])
        for network in (method.network, plain.network)
    )
    assert (found - true).norm() < 0.01 * true.norm()


# ----------------------------------------------------------------------------------------- teacher


def test_the_teacher_after_k_updates_is_the_closed_form_of_the_moving_average():
    network = BiSeNet(base=8)
    teacher = Teacher(network, 0.75)
    weight, steps = network.conv_out.conv_out.weight, []
    for step in range(8):
        with torch.no_grad():
            weight.fill_(step**2)
        steps.append(float(step**2))
        teacher.update(network)
        decays = [min(1 - 1 / (t + 1), 0.75) for t in range(step + 1)]
        shares = [(1 - a) * math.prod(decays[t + 1 :]) for t, a in enumerate(decays)]
        expected = sum(share * value for share, value in zip(shares, steps, strict=True))
        found = teacher.module.conv_out.conv_out.weight
        torch.testing.assert_close(found, torch.full_like(found, expected))
    assert shares[:4] == pytest.approx(shares[:1] * 4), "the mean, until 1 - 1/(t + 1) is alpha"


def test_the_teacher_goes_on_with_the_decay_of_its_age():
    network = BiSeNet(base=8)
    one, other = Teacher(network, 0.9), Teacher(network, 0.9)
    one.update(network), one.update(network)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        network.conv_out.conv_out.weight.add_(1)
    for teacher in (one, other):
        teacher.update(network)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_first_updates_teacher_is_the_network_in_training_mode():
    method, one = tiny(), batch()
    logits = copy.deepcopy(method.network).main_logits(one.target.image)
    all_terms(method, one)
    assert torch.equal(method.pseudo.coarse, logits.argmax(1))


def test_the_teacher_has_no_gradient_and_only_an_update_changes_it():
    method, one = moved(tiny(mask_ratio=0.7)), batch()
    before = copy.deepcopy(method.teacher.module.state_dict())
    add_gradient(method, one, torch.float32)
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    for name, value in method.teacher.module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), name
    method.after_step()
    for mine, its in zip(
        method.network.parameters(), method.teacher.module.parameters(), strict=True
    ):
        assert torch.equal(mine, its), "the first update copies"


def test_q_is_the_share_of_confident_pixels_and_the_classes_shares_sum_to_it():
    method, one = tiny(), batch()
    network = copy.deepcopy(method.network)
    all_terms(method, one)
    up = F.interpolate(
        network.main_logits(one.target.image), SIZE, mode="bilinear", align_corners=True
    )
    probability, label = up.softmax(1).max(1)
    confident = probability >= CONFIDENCE
    assert method.observed["q"].item() == pytest.approx(confident.float().mean().item(), abs=1e-3)
    for number, name in enumerate(CLASS_NAMES):
        share = (confident & (label == number)).float().mean().item()
        assert method.observed[f"confident_{name}"].item() == pytest.approx(share, abs=1e-3)


def test_a_batch_without_a_confident_pixel_trains_on():
    method, one = tiny(confidence=1.0, mask_ratio=0.7), batch()
    losses = all_terms(method, one)
    assert method.observed["q"] == 0
    assert losses["seg_masked"] == 0 and losses["seg_mixed"] > 0
    sum(losses.values()).backward()
    gradients = [p.grad for p in method.network.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_an_all_ignored_source_trains_on_the_targets_pseudo_labels_alone():
    method, one = tiny(), batch()
    one.source.label.fill_(IGNORE)
    losses = all_terms(method, one)
    assert losses["seg_source"] == 0 and losses["seg_mixed"] > 0
    assert torch.equal(method.pictures(one)["mixed label"], method.pictures(one)["pseudo-label"])


def test_the_agreement_is_1_where_the_network_says_what_the_teacher_says():
    teacher = Teacher(BiSeNet(base=8), 0.9)
    pseudo = teacher.pseudo_labels(batch().target.image, CONFIDENCE)
    logits = F.one_hot(pseudo.coarse, NUM_CLASSES).permute(0, 3, 1, 2).float()
    pasted = torch.zeros(2, *SIZE, dtype=torch.bool)
    pasted[:, :, :48] = True
    logits[..., :6] = 0  # pasted pixels do not count
    logits[:, 3, :, :6] = 1
    assert teacher.agreement(logits, pseudo, pasted) == 1
    assert teacher.agreement(logits.roll(1, 1), pseudo, pasted) == 0
    assert teacher.agreement(logits, pseudo, torch.ones_like(pasted)) == 0


def test_a_teacher_that_says_one_class_is_diagnosed():
    method = tiny()
    means = {f"confident_{name}": 0.05 for name in CLASS_NAMES}
    assert method.diagnose(means) is None
    assert "labelled 97% of the target's pixels as sky" in method.diagnose(
        {**means, "confident_sky": 0.97}
    )


def test_pictures_show_what_the_step_has_drawn():
    method, one = tiny(mask_ratio=0.7), batch()
    all_terms(method, one)
    shown = method.pictures(one)
    names = ["target", "pseudo-label", "confidence", "mixed", "mixed label", "masked"]
    assert [*shown] == names
    assert all(picture.shape == (3, *SIZE) for picture in shown.values())
    again = copy.deepcopy(method)
    again(batch())
    for name, picture in again.pictures(one).items():
        assert torch.equal(picture, shown[name]), name


# ------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("method", [ADA, FDA])
def test_masks_add_their_term_to_a_method_and_leave_its_own_as_they_are(method):
    plain, with_masks = tiny(method), tiny(method, mask_ratio=0.7)
    assert not any(isinstance(module, Teacher) for module in plain.modules())
    found, expected = all_terms(with_masks, batch()), all_terms(plain, batch())
    assert found.keys() - expected.keys() == {"seg_masked"}
    for name, loss in expected.items():
        assert torch.equal(found[name], loss), name
    assert found["seg_masked"] > 0 and with_masks.observed["q"] > 0
    found["seg_masked"].backward()
    assert any(p.grad is not None and p.grad.any() for p in with_masks.network.parameters())
    with torch.no_grad():
        for parameter in with_masks.network.parameters():
            parameter.add_(1)
    with_masks.after_step()
    (teacher,) = (module for module in with_masks.modules() if isinstance(module, Teacher))
    for mine, its in zip(with_masks.network.parameters(), teacher.module.parameters(), strict=True):
        assert torch.equal(mine, its)
