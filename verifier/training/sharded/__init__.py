"""A candidate that several processes train between them, step by step against the whole on the first one."""
