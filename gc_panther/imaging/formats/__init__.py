"""Readers of image files, a module for each format.

A file may come from anywhere. Each reader parses its header once and strictly, and what it found is
what is used: there is no second parser that could understand the same bytes differently.
"""
