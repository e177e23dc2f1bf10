"""Results on disk: saved, loaded, tabulated."""
