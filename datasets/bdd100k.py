"""BDD100K (Yu et al., CVPR 2020), its 10k images for segmentation; labels are train ids.

images/10k/<split>/*.jpg
labels/sem_seg/masks/<split>/*.png
"""

from datasets.data_set import DataSet
from datasets.labels import TRAIN_IDS
from datasets.layouts import Branch, Split, fixed

FOLDERS = Branch("images/10k/{split}", "labels/sem_seg/masks/{split}")

ROW = DataSet("bdd100k", "BDD100K", Split("BDD100K", fixed(FOLDERS), {"": TRAIN_IDS}))
