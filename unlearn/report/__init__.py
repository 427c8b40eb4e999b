"""The report: an audit's record as one self-contained page, and the commands that check it again.

file.py reads a report, page/ writes the page from the record, verify/ follows the chain of hashes and judges the
measurements again, replay/ makes the audit again and compares.
"""
