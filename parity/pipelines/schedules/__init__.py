"""Schedules: diffusers' own, the Swift package's, and the package's schedule by diffusers' classes."""
