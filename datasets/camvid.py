"""CamVid (Brostow et al., ECCV 2008) in its form of 11 classes.

<split>/*.png
<split>annot/*.png
"""

import numpy as np

from datasets.data_set import DataSet, Subset
from datasets.labels import CLASS_NAMES, LabelFormat, table_of
from datasets.layouts import Branch, Split, fixed

IDS = LabelFormat(
    "CamVid's class ids",
    values=tuple(range(12)),
    train_ids=table_of({0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18}),
)
"""11 is void, which is not scored. Its bicyclists count as bicycles."""

FOLDERS = Branch("{split}", "{split}annot")

SCORED = Subset(
    tuple(name for i, name in enumerate(CLASS_NAMES) if i in IDS.to_train_ids(np.array(IDS.scored)))
)

ROW = DataSet("camvid", "CamVid", Split("CamVid", fixed(FOLDERS), {"": IDS}), subsets=(SCORED,))
