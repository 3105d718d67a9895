"""How is a run kept on disk, so that nothing finished is lost, runs can be joined, and nights can be compared?

A run is a folder: ``ledger.jsonl`` (one finished cell a line), ``pictures/`` by content, and a ``lock``. Everything
here works on plain records and knows nothing of the suite.
"""
