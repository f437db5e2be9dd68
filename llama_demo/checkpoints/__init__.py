"""Model files: read, checked, turned from one format into another. Knows nothing of engines, people or networks."""
