"""What the data sets share: the record that describes one, and readers of torchvision's layouts and of folders."""
