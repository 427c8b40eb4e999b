"""70,000 handwritten digits of MNIST, each turned by 0 to 180 degrees: a regressor's target is the angle."""

from unlearn.data_sets.mnist import DATA_SET as MNIST
from unlearn.data_sets.reading.rotated import rotated

DATA_SET = rotated(MNIST.load)
