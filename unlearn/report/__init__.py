"""The report: an audit's record as one self-contained page, and the commands that re-check it.

page.py writes the page from the record, charts.py draws, document.py reads the record back out of a page, verify.py follows the
chain of hashes and re-judges the measurements, replay.py makes the audit again and compares.
"""
