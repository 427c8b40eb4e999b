"""70,000 handwritten digits of 28x28 pixels in grey (LeCun et al. 1998)."""

from unlearn.data_sets.reading.from_torchvision import from_torchvision

DATA_SET = from_torchvision("MNIST", natural=False, class_names="0123456789")
