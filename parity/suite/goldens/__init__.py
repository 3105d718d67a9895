"""Goldens: pictures with their traces that people accepted, and who accepted which, when and why.

A folder of goldens holds ``MODEL/CASE-RNG-SEED/ID/`` for each of them and one ``approvals.jsonl``. What lies there
without an approval counts for nothing; what was approved is bound to its digests.
"""
