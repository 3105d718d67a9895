"""What do many nights tell together: trends, changes of level, cells that are flaky, and the first bad run?"""
