"""How long do loading, a step and a picture take, and how much memory: on this machine, and as others published it?

Everything is measured in processes of its own: one for each component, so that a peak of memory is that component's,
and one that draws pictures. What is published is a table with sources, never mixed with what was measured.
"""
