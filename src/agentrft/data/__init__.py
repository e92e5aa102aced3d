"""Rows in, items and demonstrations out: streaming reads with line numbers, dataset checks, seeded splits."""
