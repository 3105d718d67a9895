"""Test set-up shared by the whole checkout."""
