"""What the user sees of a run: the terminal's table, the HTML page, the JSON for machines.

All of them read the records that :meth:`parity.suite.outcome.Outcome.record` gives, hence they work on results that
came from another process or machine.
"""
