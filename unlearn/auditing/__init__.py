"""The audit: what is left of the forgotten classes, shown to a reader who doubts it.

The subjects of an audit are the original, the original with a masked logit, this model, retrained models, and random
ones.

subjects    loads them side by side
images      chooses the images, and keeps the ledger of the real ones
bench       offers subjects, images and random sources to the measures
measures/   one measure per file
judgement/  the rules that turn measurements into a verdict, and their check on models whose answer is known
record/     what is written down, its schema and its versions
audit       all of it, from the request to the folder
"""
