"""A target without labels, looked at while training: the same four images, and indicators.

The indicators need no label, and none of them is a score: a network can be sure and wrong.

confidence         mean over pixels of the largest probability
entropy            mean over pixels of -sum p log p / log C
agreement          share of pixels where network and moving average give the same class
class difference   1/2 sum over classes of |share of predicted pixels - share of source labels|
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.labels import IGNORE
from datasets.loading.batches import batches_of
from datasets.loading.sets import SKIP
from datasets.reading import SampleFiles, read_label
from datasets.samples import SampleDataset
from model.deployment.folding import folded
from model.network import Network
from trainings.engine.state import TrainState
from trainings.options import Settings
from utils import processes
from utils.disk.run_folder import RunFolder
from utils.errors import UserError
from utils.pictures.panels import label_panel
from utils.spread import spread
from utils.upsampling import upsampled_max
from utils.utils import autocast, progress, resolve_precision

PICTURE, PICTURED = "target.png", 4

WATCHED = 64
"""Images that the indicators are means over, and labels of the source that its classes are counted
in: as many as there are, up to this."""

INDICATORS = ("confidence", "entropy", "agreement", "class difference")
"""Their names; `agreement` is there with averaged weights alone."""

SHARE_COLUMN = "target_share/"
"""Beginning of the columns of history.csv with the shares of the classes."""

NAMED = 3
"""Classes that are printed: those whose shares differ most from the source's."""


class TargetWatch:
    """Looks at the images of a target that has no labels.

    Args:
        images: of the target, each of a size of its own.
        source: the labelled files of the source, of whose labels the class shares are taken.
        on: the target in words, for the title of the picture.
    """

    def __init__(
        self,
        images: SampleDataset,
        source: Sequence[SampleFiles],
        settings: Settings,
        device: torch.device,
        *,
        on: str,
    ):
        self.images, self.settings, self.device, self.on = images, settings, device, on
        self.precision = resolve_precision(settings.precision, device)
        self.classes = settings.class_table
        labelled = [source[place] for place in spread(len(source), WATCHED)]
        skips = settings.on_bad_sample == SKIP
        self.source_shares = label_shares(labelled, len(self.classes), skips_bad=skips)

    def __call__(
        self, network: Network, average: Network | None, state: TrainState, run: RunFolder
    ) -> dict[str, float]:
        """Print the indicators, draw the images, and return the scalars of the round's row."""
        scored = folded(network)
        found, shares = self._indicators(scored, average and folded(average))
        print(f"target without labels ({self.on}), indicators, which are no scores:")
        print(", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        of_classes = dict(zip(self.classes.names, shares, strict=True))
        print(_classes_in_words(of_classes, self.source_shares), flush=True)
        row = {column_of(name): value for name, value in found.items()}
        row |= {f"{SHARE_COLUMN}{name}": share for name, share in of_classes.items()}
        run.board.scalars(row, state.step)
        if run.writes:
            self._draw(scored, state, run)
        return row

    @torch.inference_mode()
    def _indicators(
        self, network: Network, average: Network | None
    ) -> tuple[dict[str, float], list[float]]:
        """Return the indicators by name, and the share of predicted pixels of each class."""
        places = spread(len(self.images), WATCHED)
        own = processes.share(places)
        sums = torch.zeros(4 + len(self.classes), dtype=torch.float64, device=self.device)
        batches = batches_of(
            self.images,
            [[place] for place in own],
            num_workers=self.settings.workers,
            device=self.device,
        )
        for images in progress(batches, "target", total=len(own), unit="image"):
            with autocast(self.device, self.precision):
                logits = network.main_logits(images)
                beside = None if average is None else average.main_logits(images)
            sums += _sums(logits.float(), beside)
        pixels, confidence, entropy, agreed, *counts = processes.total(sums).tolist()
        shares = [count / pixels for count in counts]
        indicators = {"confidence": confidence / pixels, "entropy": entropy / pixels}
        if average is not None:
            indicators["agreement"] = agreed / pixels
        difference = sum(abs(a - b) for a, b in zip(shares, self.source_shares, strict=True)) / 2
        return {**indicators, "class difference": difference}, shares

    @torch.inference_mode()
    def _draw(self, network: Network, state: TrainState, run: RunFolder) -> None:
        rows = []
        for place in spread(len(self.images), PICTURED):
            sample = self.images[0, place]
            image = sample.image[None].to(self.device)
            with autocast(self.device, self.precision):
                (scores,) = network.main_logits(image)
            _, classes = upsampled_max(scores, image.shape[-2:])
            picture = sample.image.permute(1, 2, 0).numpy()
            rows.append((self.images.files[place].name, picture, classes.cpu().numpy()))
        title = f"{run.path.name}, epoch {state.epoch}: {self.on}"
        sheet = label_panel(rows, title=title, heading="prediction", classes=self.classes)
        run.save_picture(PICTURE, sheet)
        run.board.show("target", sheet, state.step)


def column_of(indicator: str) -> str:
    """Return the column of history.csv that holds an indicator."""
    return f"target/{indicator.replace(' ', '_')}"


def label_shares(
    files: Sequence[SampleFiles], num_classes: int, *, skips_bad: bool = False
) -> list[float]:
    """Return the share of each class among the labelled pixels of files; zeros where there are
    none.

    Labels that cannot be read raise UserError, unless `skips_bad`.
    """
    counts = np.zeros(IGNORE + 1, np.int64)
    for one in files:
        try:
            label = read_label(one.label_path, one.kind)
        except UserError:
            if not skips_bad:
                raise
            continue
        counts += np.bincount(label.ravel(), minlength=len(counts))
    of_classes = counts[:num_classes]
    return (of_classes / max(1, of_classes.sum())).tolist()


def _sums(logits: Tensor, beside: Tensor | None) -> Tensor:
    """Return the sums over the pixels of logits [N, C, h, w]: their number, confidence, entropy,
    agreement with the logits beside them, and the pixels of each class; float64 [4 + C]."""
    log_p = logits.log_softmax(1)
    confidence, classes = log_p.exp().max(1)
    entropy = -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])
    agreed = classes == (classes if beside is None else beside.argmax(1))
    counts = torch.bincount(classes.flatten(), minlength=logits.shape[1])
    scalars = (confidence.sum(), entropy.sum(), agreed.sum())
    pixels = logits.new_tensor(classes.numel())
    return torch.cat([torch.stack([pixels, *scalars]).double(), counts.double()])


def _classes_in_words(shares: Mapping[str, float], source: Sequence[float]) -> str:
    """Return the classes whose shares, by name, differ most from the source's, in percent."""
    pairs = zip(shares.items(), source, strict=True)
    order = sorted(pairs, key=lambda pair: abs(pair[0][1] - pair[1]), reverse=True)
    words = [f"{n} {100 * own:.1f} % ({100 * other:.1f} %)" for (n, own), other in order[:NAMED]]
    return (
        f"predicted pixels per class (of the source's labels), most different: {', '.join(words)}"
    )
