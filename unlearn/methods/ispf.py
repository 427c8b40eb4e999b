"""Inhibited synthesis and post-filter: every generated image is used, none shows a forget class (Zhang et al. 2025).

This is GKT's loop with two changes. First, inhibited synthesis: in the generator's disagreement the terms of the forget
classes change sign, so that the generator gains nothing from these classes. It also learns batch-norm statistics, certainty
and balance:

    G:  min  L_bn + L_oh + L_adv + L_balance,     L_adv = mean_n [ -Σ_{c ∉ F} k_c + Σ_{c ∈ F} k_c ],  k_c = p_c (log p_c - log q_c)

Second, the post-filter: instead of a gate, the teacher's logits are corrected on images that it gives a forget class some
probability. Both are settings of GKT, so each can be used without the other: `unlearn gkt --inhibit`,
`unlearn gkt --post-filter --gate 1`, `unlearn distill --post-filter`.

The paper does not say which classes L_balance balances. Here, with inhibition, it balances the retain classes: to balance all
classes the generator would have to produce what inhibition forbids.
"""

from unlearn.methods.gkt import NEEDS_TEACHER, STARTS_FROM_TEACHER, needs_monitor, start, trains_on_shards

__all__ = ["NEEDS_TEACHER", "STARTS_FROM_TEACHER", "needs_monitor", "start", "trains_on_shards"]
