"""The audit: what is left of the forgotten classes, shown to someone who doubts it.

One measure a file, each with the closed-form quantity as a function of its own and

    measure(bench: Bench) -> list[Measurement]      which raises CannotRunError where an input is missing

over every subject of the bench: original | masked logit | this model | retrained | random. `measures.py` has the list,
`verdict.py` the rules that turn measurements into words, `record.py` what is written down.
"""
