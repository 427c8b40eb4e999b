"""60,000 photos of ten kinds of animals and vehicles, 32x32 pixels in colour (Krizhevsky 2009)."""

from unlearn.data_sets.reading.from_torchvision import from_torchvision

DATA_SET = from_torchvision("CIFAR10", natural=True)
