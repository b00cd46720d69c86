import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from datasets.labels import IGNORE
from utils.transforms import (
    AUGMENTATIONS,
    Preparation,
    augmentation_codes,
    crop_and_augment,
    fitted_size,
    scaled_crop,
    train_transform,
)

GEOMETRIC = {"HF", "RP", "R", "RS"}


def pair(size=(60, 96)):
    """A smooth picture whose label says which third of the red and the green ramp a pixel is in."""
    rows = torch.linspace(40, 240, size[0])[:, None].expand(size)
    columns = torch.linspace(40, 240, size[1])[None].expand(size)
    image = torch.stack([rows, columns, torch.full(size, 200.0)]).round().to(torch.uint8)
    return tv_tensors.Image(image), tv_tensors.Mask(expected_label(image))


def expected_label(image):
    """The label that belongs to the colours of the picture, uint8 [H, W]."""
    return ((image[0].int() - 40) // 67 * 3 + (image[1].int() - 40) // 67).to(torch.uint8)


def augment(aug_method, probability, size=(60, 96)):
    """Augment a picture of that size, so that a plain crop changes nothing."""
    return crop_and_augment(aug_method, probability, size)


@pytest.mark.parametrize("code", AUGMENTATIONS)
def test_image_and_label_move_together(code):
    image, label = pair()
    transform = augment(code, 1.0)
    moved = 0
    for seed in range(12):
        torch.manual_seed(seed)
        new_image, new_label = transform(image, label)
        assert new_image.shape == image.shape and new_image.dtype == torch.uint8
        assert new_label.shape == label.shape and new_label.dtype == torch.uint8
        moved += int(not torch.equal(new_label, label))
        if code in GEOMETRIC:
            kept = new_label != IGNORE
            agree = (expected_label(new_image) == new_label)[kept].float().mean()
            assert agree > 0.93, (code, seed, agree)
            assert set(new_label.unique().tolist()) <= {*label.unique().tolist(), IGNORE}
    assert (moved > 0) == (code in GEOMETRIC)


@pytest.mark.parametrize("code", AUGMENTATIONS)
def test_every_range_contains_the_identity(code):
    """Over many draws some leave the picture almost as it was; none of them fails."""
    image, label = pair((24, 40))
    make, least = AUGMENTATIONS[code].make, 255.0
    transform = v2.RandomApply([make()], p=1.0) if make else augment(code, 1.0, (24, 40))
    for seed in range(200):
        torch.manual_seed(seed)
        new_image, _ = transform(image, label)
        least = min(least, (new_image.int() - image.int()).abs().float().mean().item())
    # A perspective has eight offsets, which are rarely all small at once.
    assert least < (12 if code == "RP" else 2), least


@pytest.mark.parametrize(
    ("code", "strength"),
    [("C", "contrast"), ("S", "saturation"), ("B", "brightness"), ("H", "hue")],
)
@pytest.mark.parametrize("size", [(64, 96), (131, 77), (1, 1), (200, 333)])
def test_colours_change_as_torchvision_changes_them_to_the_bit(code, strength, size):
    """Also of a crop, whose rows do not follow one another, and with the same draws after it."""
    torch.manual_seed(1)
    whole = torch.randint(0, 256, (3, size[0] + 5, size[1] + 3), dtype=torch.uint8)
    image = tv_tensors.Image(whole[:, 2 : 2 + size[0], 1 : 1 + size[1]])
    label = tv_tensors.Mask(torch.zeros(size, dtype=torch.uint8))
    theirs = v2.ColorJitter(**{strength: 0.2 if code == "H" else 0.5})
    for seed in range(12):
        results = []
        for transform in (AUGMENTATIONS[code].make(), theirs):
            torch.manual_seed(seed)
            results.append((transform(image, label)[0], torch.rand(1)))
        (ours, draw), (expected, expected_draw) = results
        assert type(ours) is tv_tensors.Image and ours.dtype == torch.uint8
        assert torch.equal(ours, expected) and torch.equal(draw, expected_draw)


@pytest.mark.parametrize("code", ["R", "RP"])
def test_pixels_outside_the_frame_are_ignored_and_black(code):
    image = tv_tensors.Image(torch.full((3, 40, 64), 200, dtype=torch.uint8))
    label = tv_tensors.Mask(torch.zeros(40, 64, dtype=torch.uint8))
    outside = 0
    for seed in range(8):
        torch.manual_seed(seed)
        new_image, new_label = augment(code, 1.0, (40, 64))(image, label)
        assert set(new_label.unique().tolist()) <= {0, IGNORE}
        black = (new_image == 0).all(0)
        assert (new_label[black] == IGNORE).all()
        outside += int(black.sum())
    assert outside > 0


@pytest.mark.parametrize("method", ["", "nonorm"])
def test_none_means_none(method):
    image, label = pair()
    new_image, new_label = augment(method, 1.0)(image, label)
    assert torch.equal(new_image, image) and torch.equal(new_label, label)


def test_the_whole_composition_is_applied_with_the_probability():
    image, label = pair()
    torch.manual_seed(0)
    transform = augment("B-C-S", 0.5)
    changed = sum(not torch.equal(transform(image, label)[0], image) for _ in range(200))
    assert 70 < changed < 130


def test_codes():
    assert augmentation_codes("C-S-HF") == ("C", "S", "HF")
    with pytest.raises(ValueError, match=r"'X'.*C, S, B, H, GS, HF"):
        augmentation_codes("C-X")


def test_source_is_resized_then_cropped():
    image, label = pair()
    transform = train_transform(
        Preparation((90, 144), resizes_label=True),
        crop_to=(60, 96),
        aug_method="",
        aug_probability=0.5,
    )
    torch.manual_seed(1)
    new_image, new_label = transform(image, label)
    assert new_image.shape == (3, 60, 96) and new_label.shape == (60, 96)
    assert (expected_label(new_image) == new_label).float().mean() > 0.93


def test_a_crop_at_a_random_scale_takes_all_there_is_before_anything_is_made_up():
    """Of 90x144 a crop of 60x96 shows a part of 40x64 (scale 1.5) to 80x128 (0.75): the ramp of the
    columns, 40 to 240, is seen at 1.5 to 3 times the slope that it has over the crop's width."""
    image, label = pair((90, 144))
    transform = augment("RS", 1.0)
    shares = []
    for seed in range(60):
        torch.manual_seed(seed)
        new_image, new_label = transform(image, label)
        assert new_image.shape == (3, 60, 96) and (new_label != IGNORE).all()
        ramp = new_image[1, 0].int()
        shares.append((ramp[-1] - ramp[0]).item() / 200)
    assert min(shares) == pytest.approx(64 / 144, abs=0.05)
    assert max(shares) == pytest.approx(128 / 144, abs=0.05)


@pytest.mark.parametrize("size", [(60, 96), (60, 144), (89, 97)])
def test_what_is_hardly_larger_than_the_crop_is_not_padded(size):
    image, label = pair(size)
    for seed in range(20):
        torch.manual_seed(seed)
        new_image, new_label = augment("RS", 1.0)(image, label)
        assert new_image.shape == (3, 60, 96) and new_label.shape == (60, 96)
        assert (new_label != IGNORE).all() and (new_image > 0).all()


@pytest.mark.parametrize(
    ("picture", "size", "stretch", "fitted"),
    [
        ((1024, 2048), (512, 1024), 0.05, (512, 1024)),  # Cityscapes
        ((1052, 1914), (720, 1280), 0.15, (720, 1280)),  # GTA5, as FDA's protocol has it
        ((128, 256), (90, 160), 0.15, (90, 160)),  # Toy City, likewise
        ((3024, 4032), (512, 1024), 0.05, (768, 1024)),
        ((3024, 4032), (720, 1280), 0.15, (960, 1280)),
        ((1080, 1920), (512, 1024), 0.05, (576, 1024)),
        ((400, 1600), (512, 1024), 0.05, (512, 2048)),
        ((4032, 3024), (512, 1024), 0.05, (1365, 1024)),
    ],
)
def test_a_picture_keeps_its_proportions_unless_they_are_nearly_those_asked_for(
    picture, size, stretch, fitted
):
    assert fitted_size(picture, size, stretch) == fitted
    assert fitted_size(fitted, size, stretch) == fitted


def test_what_fits_once_fits_again():
    generator = torch.Generator().manual_seed(0)
    for sides in torch.randint(64, 700, (2000, 4), generator=generator).tolist():
        picture, size = tuple(sides[:2]), tuple(sides[2:])
        fitted = fitted_size(picture, size)
        assert fitted_size(fitted, size) == fitted
        assert all(own >= asked for own, asked in zip(fitted, size, strict=True))


def test_a_scaled_crop_shows_a_part_at_one_of_the_scales():
    """Columns and rows of a ramp tell where a crop lies and how large it is."""
    height, width, size = 200, 400, (64, 96)
    ramp = torch.arange(width).mul(255).div(width - 1, rounding_mode="floor").to(torch.uint8)
    image = tv_tensors.Image(ramp.expand(3, height, width).contiguous())
    label = tv_tensors.Mask((torch.arange(width) // 40).to(torch.uint8).expand(height, width))
    found = set()
    for seed in range(40):
        torch.manual_seed(seed)
        crop, ids = scaled_crop(image, label, size=size, scales=(0.5, 1.5, 0.5))
        assert crop.shape == (3, *size) and ids.shape == size
        assert set(ids.unique().tolist()) <= set(range(10))
        slope = (crop[0, 0, -9].float() - crop[0, 0, 8]).item() / (size[1] - 17)  # grey a pixel
        found.add(round(255 / (width - 1) / slope / 0.5) * 0.5)
    assert found == {0.5, 1.0, 1.5}


def test_an_image_that_becomes_too_small_covers_the_crop_with_fewer_pixels():
    image = tv_tensors.Image(torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8))
    label = tv_tensors.Mask(torch.zeros(64, 128, dtype=torch.uint8))
    crop, _ = scaled_crop(image, label, size=(64, 128), scales=(0.25, 0.25))
    small = v2.functional.resize(image, [16, 32], antialias=True)
    assert torch.equal(crop, v2.functional.resize(small, [64, 128], antialias=True))
    whole, _ = scaled_crop(image, label, size=(64, 128), scales=(1.0, 1.0))
    assert torch.equal(whole, image)
