"""Reports that people read: one self-contained HTML file with tables, retrieval grids and charts.

Results become pictures and text here; nothing here computes a metric.
"""
