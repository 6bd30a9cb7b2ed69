"""Accepts or refuses evidence; shares no code with what produced it."""
