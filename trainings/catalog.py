"""The table of experiments, one for each training action, and the steps of the study."""

from datasets.data_set import Role
from trainings.experiment import Experiment, unlabelled_target
from trainings.options import PseudoLabelOptions, Settings
from trainings.reproduction.steps import (
    ADAPTED_SOURCE_ONLY,
    AUGMENTATION,
    SOURCE_ONLY,
    Step,
    Work,
)
from trainings.scoring.batch_norm import TARGET
from trainings.scoring.mbt import BETAS
from trainings.scoring.pseudo_labelled import pseudo_labelled_target, self_training_target
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_distill import Distillation
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils.cli.options import Options

ON_SOURCE = Experiment(
    action="train_source",
    stem="source_{source}",
    source=Role.SOURCE,
    validation=Role.SOURCE,
    method=Supervised,
    transfer="val_transfer",
)
ON_TARGET = Experiment(
    action="train_target",
    stem="target_{target}",
    source=Role.TARGET,
    validation=Role.TARGET,
    method=Supervised,
)
SIMPLE_CITYSCAPES = Experiment(
    action="train_simple_cityscapes",
    stem="simple_cityscapes",
    source=Role.TARGET,
    validation=Role.TARGET,
    method=Supervised,
    general=ON_TARGET,
)
SIMPLE_GTA5 = Experiment(
    action="train_simple_gta5",
    stem="simple_gta5",
    source=Role.SOURCE,
    validation=Role.SOURCE,
    method=Supervised,
    general=ON_SOURCE,
    transfer="val_gta5_transfer",
)
SUPERVISED = (SIMPLE_CITYSCAPES, SIMPLE_GTA5, ON_SOURCE, ON_TARGET)
ADVERSARIAL = Experiment(
    action="train_ada",
    stem="ada",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=ADA,
    target=unlabelled_target,
)
FOURIER = Experiment(
    action="train_fda",
    stem="fda{fda_beta}",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=FDA,
    target=unlabelled_target,
)
SELF_TRAINING = Experiment(
    action="train_ssl_fda",
    stem="ssl{ssl_round}_fda{fda_beta}",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=SSLFDA,
    target=self_training_target,
)
MIXING = Experiment(
    action="train_dacs",
    stem="dacs",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=DACS,
    target=unlabelled_target,
)
MASKED_MIXING = Experiment(
    action="train_mic",
    stem="mic",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=DACS,
    target=unlabelled_target,
    defaults=(("mask_ratio", 0.7),),
)
DISTILLATION = Experiment(
    action="train_distill",
    stem="distill",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=Distillation,
    target=pseudo_labelled_target,
)

STEPS: list[Step] = [
    Step("1.A", "Supervised on the target", SIMPLE_CITYSCAPES),
    Step("1.B", SOURCE_ONLY, SIMPLE_GTA5, (Work.TRAIN,), domain=Role.SOURCE),
    Step("1.C", SOURCE_ONLY, SIMPLE_GTA5, (Work.SCORE,), baseline=True, plan_title="Domain shift"),
    Step("1.C", ADAPTED_SOURCE_ONLY, SIMPLE_GTA5, (), statistics=TARGET),
    Step("1.D", SOURCE_ONLY, SIMPLE_GTA5, flag="aug_method", values=(AUGMENTATION,), found=True),
    Step("2", "ADA", ADVERSARIAL),
    Step("3.A", "FDA", FOURIER, flag="fda_beta", values=BETAS),
    Step("3.B", "MBT", FOURIER, (Work.ENSEMBLE,)),
    Step("3.C", "Pseudo-labels", FOURIER, (Work.LABEL,), domain=None),
    Step("3.C", "SSL-FDA", SELF_TRAINING, flag="fda_beta", values=BETAS, found=True),
    Step("3.C", "MBT of SSL-FDA", SELF_TRAINING, (Work.ENSEMBLE,)),
    Step("4", "DACS", MIXING),
    Step("5", "MIC", MASKED_MIXING),
    Step(
        "6",
        "Distillation of MIC",
        DISTILLATION,
        (Work.LABEL, Work.TRAIN, Work.SCORE),
        teacher=MASKED_MIXING,
    ),
]
"""The steps of `reproduce`, `demo` and `report`: first the users' list in its order."""

MEASURED = tuple(
    {s.experiment.method: s.experiment for s in STEPS if not s.experiment.defaults}.values()
)
"""An experiment of each method, whose training the benchmark measures."""

OF_LABELS = (*PseudoLabelOptions.own_flags(), "ssl_round")
"""Flags of methods that say which pseudo-labels are read, and change no training step."""

STEP_READ = (
    *("batch_size", "optimizer", "learning_rate", "head_lr_mult", "weight_decay", "ohem"),
    *("clip_grad_norm", "ema_decay", "detail_guidance", "poly_power"),
    *(n for one in MEASURED for n in one.method.Options.own_flags() if n not in OF_LABELS),
)
"""Flags that a single training step of all methods reads."""

REPRODUCTION_READ: tuple[type[Options], ...] = (
    Settings,
    *(step.experiment.method.Options for step in STEPS),
)
