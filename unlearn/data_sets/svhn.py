"""99,289 photos of house numbers, 32x32 pixels in colour (Netzer et al. 2011). A mirrored digit is no digit."""

from unlearn.data_sets.reading.from_torchvision import from_torchvision

DATA_SET = from_torchvision("SVHN", natural=False, class_names="0123456789")
