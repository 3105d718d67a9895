"""The kinds of questions that a cell can ask, one module a kind."""
