"""Our own architectures, one per file. An architecture's file has

    build(in_channels, num_classes, image_size, width) -> nn.Module
        an untrained network that maps (N, in_channels, image_size, image_size) to logits (N, num_classes); `width`
        scales its channels, and 1 gives the published network. Raises UsageError where it cannot take such images.

Other packages add an architecture by an entry point in the group below (docs/extending.md). Such code is trusted,
because the user installed it.
"""

from synth.basics.plugins import Plugins

ARCHITECTURES = Plugins(
    kind="architecture",
    package="synth.checkpoint.architectures",
    own=("lenet5", "allcnn", "resnet20"),
    group="data_free_unlearning.architectures",
)
names = ARCHITECTURES.names
