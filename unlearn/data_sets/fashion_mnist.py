"""70,000 pictures of clothes, 28x28 pixels in grey (Xiao et al. 2017)."""

from unlearn.data_sets.reading.from_torchvision import from_torchvision

DATA_SET = from_torchvision("FashionMNIST", natural=False)
