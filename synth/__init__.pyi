from synth.api import generate as generate
from synth.api import recognise as recognise
