"""The page of a run: what is seen in pictures, each picture once, curves and trends, cells by group, worst first."""
