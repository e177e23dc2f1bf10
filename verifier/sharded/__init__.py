"""One model that several processes hold between them, against the whole: joined by content, judged as any other."""
