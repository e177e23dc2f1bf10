"""What a saved verification looks like, on a page and on a terminal. Reads the result records alone."""
