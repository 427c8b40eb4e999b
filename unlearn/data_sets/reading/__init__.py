"""What the data sets share: the record that describes one, and the readers of torchvision's layouts and of image folders."""
