from synth.api import generate as generate
