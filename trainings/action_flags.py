"""Lists of the flags that actions read, and of those that the help of an action shows first."""

from model.catalog import RECORDED

TRAINING_FLAGS = (
    *(
        "recipe",
        "pretrain_path",
        "num_epochs",
        "num_steps",
        "batch_size",
        "optimizer",
        "learning_rate",
        "aug_method",
    ),
    *("image_size", "save_model_path", "save_keyword", "overwrite", "validation_only"),
)
SCORING_FLAGS = ("load_model_path", "select", "bn_statistics")
"""Flags that the help of trainings and of scorings shows before the flags of the action."""

VIEWS = ("eval_scales", "eval_flip")
NETWORK_READ = (*RECORDED, "image_size")
"""Flags that an action reads which loads a network."""

SCORING_READ = (
    *(*NETWORK_READ, *VIEWS, "bn_statistics", "batch_size", "on_bad_sample"),
    *("select", "optimizer", "aug_method", "save_keyword"),
)
"""Flags that an action reads which searches for runs and scores their networks, or runs them on a
data set."""

SAMPLES_READ = ("image_size", "train_scales", "aug_method", "aug_probability", "on_bad_sample")
"""Flags of the data set that every training reads."""

SOURCE_READ = ("source_resize", "gta5_val_fraction")
"""Flags that only an action reads which reads the source."""

TARGET_READ = ("gta5_val_fraction",)
"""Flags that an action reads whose target may be a folder of labelled images without splits, which
are divided by a share."""

PAIR = ("source", "target", "source_root", "target_root")
"""Flags that the help of an action on both domains shows after the flags made for it."""

REPRODUCTION_FLAGS = (
    *("configs", "seeds", "jobs", "dry_run", "verbose", "aug_method", "num_epochs", "num_steps"),
    "save_keyword",
)
