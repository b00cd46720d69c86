"""The official STDC files (Fan et al., CVPR 2021): names that our networks do without, and norms of
another kind."""

from collections.abc import Mapping

from torch import Tensor

# The backbone's layers once more under the names of their strides, and its ImageNet classifier.
BACKBONE_SURPLUS = r"(x(2|4|8|16|32)|conv_last|fc|bn|linear)\."


COUNTER = "num_batches_tracked"
INPLACE_ABN_EPSILON = 1e-5


def for_batch_norm(tensors: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """Return the tensors for batch norm: it scales by w, InPlaceABN by |w| + epsilon.

    Norms outside the backbone are InPlaceABN's where they count no batches and the backbone's
    ordinary ones do. `backbone` is what the backbone's names begin with.
    """
    counters = [name for name in tensors if name.endswith(COUNTER)]
    if not counters or not all(name.startswith(backbone) for name in counters):
        return dict(tensors)
    statistics = (name for name in tensors if name.endswith("running_var"))
    norm_weights = {name.removesuffix("running_var") + "weight" for name in statistics}
    return {
        name: tensor.abs() + INPLACE_ABN_EPSILON
        if name in norm_weights and not name.startswith(backbone)
        else tensor
        for name, tensor in tensors.items()
    }
