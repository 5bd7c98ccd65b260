"""Tests of the domain: changes, folding, files."""
