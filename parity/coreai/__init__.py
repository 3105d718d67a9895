"""Core AI, Core ML's successor: running ``.aimodel`` files and converting to them.

Apple's packages ``coreai-core`` and ``coreai-torch`` (extra ``core-ai``) run on Linux too, as an interpreter without
compute units: what a program computes in Apple's own implementation, nothing about hardware. See ``docs/core-ai.md``.

* :mod:`parity.coreai.availability`: can it run here, and if not, why?
* :mod:`parity.coreai.process`: one file in a process of its own, which may die without harm.
* :mod:`parity.coreai.asset`: what is in a file: features, sizes, precision, program, weights.
* :mod:`parity.coreai.converter`: from a torch module to a file.
* :mod:`parity.coreai.hazards`: what the converter would translate into something else, found before.
* :mod:`parity.coreai.networks`: the networks of Stable Diffusion as modules to convert.
* :mod:`parity.coreai.means`: how group norms take their means in what is converted here.
* :mod:`parity.coreai.oracle`: random graphs, computed three ways.

Nothing here imports torch or Core AI before it is needed.
"""
