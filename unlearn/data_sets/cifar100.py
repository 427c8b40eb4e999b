"""60,000 photos of a hundred kinds of things, 32x32 pixels in colour (Krizhevsky 2009)."""

from unlearn.data_sets.reading.from_torchvision import from_torchvision

DATA_SET = from_torchvision("CIFAR100", natural=True)
