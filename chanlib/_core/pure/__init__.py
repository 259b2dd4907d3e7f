"""The reference engine: Python, written for reading."""
