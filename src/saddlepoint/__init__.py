"""Worst-case machine learning."""
