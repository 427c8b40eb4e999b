"""Inhibited synthesis and post-filter: every generated image is used, none shows a forget class (Zhang et al. 2025).

This is GKT's loop with two changes. First, inhibited synthesis: in the generator's disagreement the terms of the forget
classes change sign, so that the generator gains nothing from these classes. It also learns batch-norm statistics,
certainty and balance:

    G:  min  L_bn + L_oh + L_adv + L_balance
        L_adv = mean_n [ -Σ_{c ∉ F} k_c + Σ_{c ∈ F} k_c ],   k_c = p_c (log p_c - log q_c)

Second, the post-filter: instead of a gate, the teacher's logits are corrected on images that it gives a forget class
some probability. Both are settings of GKT, so each can be used without the other: `unlearn gkt --inhibit`, `unlearn gkt
--post-filter --gate 1`, `unlearn distill --post-filter`.

The paper does not say which classes L_balance balances. Here, with inhibition, it balances the retain classes: to
balance all classes the generator would have to produce what inhibition forbids.
"""

from dataclasses import dataclass

from synth.basics.settings import MOST_STEPS, setting
from unlearn.methods.gkt import (
    IDLE,
    SCHEDULE,
    STARTS_FROM_TEACHER,
    GKTSettings,
    needs_monitor,
    start,
    trains_on_shards,
)


@dataclass(frozen=True, kw_only=True)
class ISPFSettings(GKTSettings):
    """Inhibited synthesis and post-filter: GKT's settings with this paper's defaults. A round is one of its epochs."""

    rounds: int = setting(200, "rounds of generator and student steps", at_least=1, most=MOST_STEPS)
    generator_steps: int = setting(5, "generator steps per round", at_least=1, most=MOST_STEPS, rare=True)
    student_steps: int = setting(50, "student steps per round", at_least=1, most=MOST_STEPS, rare=True)
    z: int = setting(256, "length of the generator's noise", at_least=1, most=65536, rare=True)
    gate: float = setting(
        1.0, "images pass if every forget class's probability is below this (ε); 1 lets all pass", above=0, at_most=1
    )
    attention: float = setting(0.0, "weight of attention transfer (β); 0 leaves it out", at_least=0)
    inhibit: bool = setting(True, "change the sign of the forget classes in the generator's loss", rare=True)
    post_filter: bool = setting(True, "push the forget classes down in the teacher's logits")
    bn: float = setting(1.0, "weight of the batch-norm statistics in the generator's loss", at_least=0, rare=True)
    one_hot: float = setting(1.0, "weight of the teacher's certainty in the generator's loss", at_least=0, rare=True)
    balance: float = setting(1.0, "weight of equally frequent classes in the generator's loss", at_least=0, rare=True)
    generator_beta1: float = setting(0.5, "Adam's first momentum for the generator", at_least=0, below=1, rare=True)
    clip: float = setting(0.0, "largest gradient norm of the generator; 0 is none", at_least=0, rare=True)
    optimiser: str = setting("sgd", "the student's optimiser; sgd has momentum 0.9", choices=("adam", "sgd"), rare=True)
    student_lr: float = setting(0.05, "the student's learning rate", above=0, rare=True)
    schedule: str = setting("cosine", SCHEDULE, choices=("constant", "cosine", "plateau"), rare=True)


HELP = (
    "Train a generator and a student by inhibition. As gkt, but no image is dropped: a filter takes the "
    "forget classes out of the teacher's answers. Shards only serve to stop the run in time."
)
SETTINGS = ISPFSettings
PRESETS: dict[str, ISPFSettings] = {}


__all__ = ["IDLE", "STARTS_FROM_TEACHER", "needs_monitor", "start", "trains_on_shards"]
